from __future__ import annotations

import importlib.util
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location("faults", Path(__file__).with_name("faults.py"))
assert _SPEC is not None and _SPEC.loader is not None
faults = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(faults)


def test_the_page_lists_exactly_the_faults_that_tests_are_marked_with() -> None:
    assert faults.PAGE.read_text(encoding="utf-8") == faults.page(), "run: python tests/faults.py"


def test_no_fault_is_listed_twice() -> None:
    tried = [(section, text) for section, text, *_ in faults.marks()]
    assert len(tried) == len(set(tried)) and len(tried) > 0
