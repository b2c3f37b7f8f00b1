"""The past: names, spellings and call forms of solo-learn 1.0.6 and of the HEX release, and what they mean here."""
