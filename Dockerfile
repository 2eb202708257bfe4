# mlpexp with torch for CPUs: docker build -t mlpexp . && docker run --rm -v "$PWD:/work" mlpexp train model.depth=2
FROM python:3.11-slim AS build
WORKDIR /src
RUN apt-get update && apt-get install --no-install-recommends -y git && rm -rf /var/lib/apt/lists/*
COPY . .
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /dist

FROM python:3.11-slim
COPY --from=build /dist /dist
COPY constraints.txt /dist/
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
        --constraint /dist/constraints.txt "$(echo /dist/*.whl)[fast,search,export,parquet]" \
    && mkdir /work && chmod 777 /work
WORKDIR /work
ENV OMP_NUM_THREADS=1 HOME=/tmp
ENTRYPOINT ["mlpexp"]
CMD ["--help"]
