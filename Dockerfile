# docker build -t nightisp .
# docker run --gpus all -v "$PWD/data:/data" nightisp ./run.sh
#
# A torch for another CUDA, or for the CPU only: --build-arg TORCH="torch==2.13.0 ..." (whatever pip understands).
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm

ARG TORCH=torch==2.13.0
# Extras of nightisp, with commas between them: --build-arg EXTRAS=dask,s3
ARG EXTRAS=
ENV PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    NIGHTISP_STORE=/var/cache/nightisp \
    GLIBC_TUNABLES=glibc.malloc.tcache_count=0
WORKDIR /nightisp

# Layers from what changes seldom to what changes often: torch, the other packages, the sources.
COPY constraints.txt ./
# hadolint ignore=SC2086
RUN pip install --constraint constraints.txt pip setuptools \
 && pip install --constraint constraints.txt ${TORCH}
COPY pyproject.toml ./
COPY scripts/requirements.py scripts/
RUN python scripts/requirements.py "${EXTRAS}" > requirements.txt \
 && pip install --constraint constraints.txt --requirement requirements.txt \
 && rm requirements.txt
COPY . .
# Without git DVC must be told so.
RUN pip install --no-deps --no-build-isolation --editable . \
 && dvc init --no-scm --quiet \
 && dvc config core.analytics false \
 && python -m compileall -q nightisp tasks flows \
 && install --directory --mode 1777 "${NIGHTISP_STORE}"
# No USER here: a mounted folder belongs to whom it belongs to outside, and a fixed user could not write into it.
# run.sh gives up root for the owner of that folder before it opens a photograph; `docker run --user` works as well.
CMD ["./run.sh"]
