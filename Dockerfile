# One image holds both servers and authctl; compose.yaml says which of them a container runs.
#
#   docker build .                                  compiles from source (the stage `built`)
#   docker build --target prebuilt .                takes the binaries of `cargo build --release`
#
# The builder without BuildKit runs every stage up to the one asked for. So `prebuilt` comes before the stages
# that need a Rust image, and does not mind when there are no binaries.

ARG BASE=debian:bookworm-slim
ARG RUST=rust:1.95-slim-bookworm

# What both final images share: the user, the directories and the environment.
FROM ${BASE} AS runtime
LABEL org.opencontainers.image.title="Berth" \
      org.opencontainers.image.description="A private container registry with token authentication built in" \
      org.opencontainers.image.licenses="Apache-2.0"
# A new named volume takes its owner from the directory it is mounted on, so the directories are made here.
RUN groupadd --gid 10001 berth \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/berth --shell /usr/sbin/nologin berth \
 && for part in auth registry certs ca run; do \
        install -d -o 10001 -g 10001 -m 0750 "/var/lib/berth/$part"; \
    done
ENV BERTH_DATA=/var/lib/berth/auth \
    PATH=/opt/berth:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /var/lib/berth
# By number, so that a cluster can check that it is not root.
USER 10001:10001
# The port that compose.yaml's `init` makes the registry listen on.
EXPOSE 5000

# Takes binaries that were compiled outside; they must suit the C library of BASE.
# The brackets make patterns of the names: a pattern may match nothing, a name must be there.
FROM runtime AS prebuilt
ARG BINARIES=target/release
COPY LICENSE ${BINARIES}/auth-serve[r] ${BINARIES}/registry-serve[r] ${BINARIES}/authct[l] /opt/berth/

# Keep RUST in step with rust-toolchain.toml.
# That file itself stays out: it would make rustup fetch tools that a build does not need.
FROM ${RUST} AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY shared shared
COPY auth-server auth-server
COPY credential-provider credential-provider
COPY registry-server registry-server
COPY tests tests
RUN cargo build --locked --release --package berth-auth-server --package berth-registry-server

# The last stage is what `docker build .` makes.
FROM runtime AS built
COPY LICENSE /opt/berth/
# What the issuers of `authctl trust` are believed by, unless it is told otherwise.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/auth-server /src/target/release/registry-server /src/target/release/authctl /opt/berth/
