# docker build -t solo .                    (TORCH="torch==2.6.* torchvision==0.21.*" for other versions)
# docker run --rm -v "$PWD/trained_models:/runs/trained_models" solo pretrain digits hex        (--gpus all for GPUs)
FROM python:3.12-slim
ARG TORCH="torch torchvision"
WORKDIR /runs
RUN pip install --no-cache-dir $TORCH
COPY . /opt/solo
RUN pip install --no-cache-dir /opt/solo
ENTRYPOINT ["solo"]
