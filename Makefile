# Thin on purpose: each target is one line or one script.
.PHONY: help up test test-full test-soak lint bench bench-quick bench-versions bench-load clean

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

up: ## Build, prepare data/ and certs/ on the first run, and serve until Ctrl-C
	@exec scripts/up.sh

test: ## Format, lints, tests, documentation, real clients
	@exec scripts/test.sh

test-full: ## The same, and what builds other projects first: a real Kubernetes node, BuildKit's caches
	@BERTH_FULL=1 exec scripts/test.sh

test-soak: ## Kill both servers 200 times, with and without a power cut; read at 1 KB/s for ten minutes
	cargo build --release --locked -p berth-auth-server -p berth-registry-server --bins
	BERTH_ROUNDS=200 tests/interop/kill.sh
	BERTH_ROUNDS=200 tests/interop/powercut.sh
	tests/soak/slow-readers.sh

lint: ## Format, lints and lock files alone
	cargo fmt --all --check
	cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --workspace --bench hot --features berth-tests/hot --locked -- -D warnings

bench: ## Measure beside nginx and docker-registry, and what ZOT, ZB, ANGOS, DISTRIBUTION, DOCKER_AUTH and CONTAINERD name
	@exec bench/run.sh

bench-quick: ## The same in three minutes: one round of the registries' rows
	@exec bench/run.sh quick

bench-versions: ## Measure two builds of Berth in turns: BEFORE=DIRECTORY make bench-versions
	@exec bench/versions.sh

bench-load: ## Measure memory, files and a good client's waits under attack
	@exec bench/load.sh

clean: ## Remove what was built; data/ and certs/ stay
	cargo clean
