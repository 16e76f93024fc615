# The wheel, its tests, and a slim image which tells which engine serves:
#
#   docker build -t uringfile .                         docker run --rm uringfile
#   docker build -t uringfile-test --target test .      docker run --rm uringfile-test
#
# The default seccomp profile forbids io_uring, and POSIX AIO serves. With the shipped one:
#
#   docker run --rm uringfile python -m uringfile seccomp-profile >profile.json
#   docker run --rm --security-opt seccomp=profile.json uringfile

ARG IMAGE=docker.io/library/python:3.11-slim

FROM ${IMAGE} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

# On top of build, since there are tests which need the compiler. They run when the image is
# built, and again, under whatever profile it is given, when it is run.
FROM build AS test
RUN wheel=$(echo /dist/*.whl) && pip install --no-cache-dir "$wheel[test]"
RUN python -m pytest && rm -rf /tmp/pytest-of-*
CMD ["python", "-m", "pytest"]

FROM ${IMAGE}
COPY --from=build /dist /dist
RUN pip install --no-cache-dir /dist/*.whl
USER nobody
CMD ["python", "-m", "uringfile", "doctor"]
