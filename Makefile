# `make demo` and `make test` do all their own set-up on Debian with only Rust, a C compiler, git and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.PHONY: help demo test check chaos bench setup-demo setup-test

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: setup-demo ## The whole loop on real clips with simulated models: no keys, no money
	cargo build --locked --no-default-features --bin aurelia
	target/debug/aurelia demo --dir target/demo

# One more than there are cores: tests wait for servers more than they compute.
test: export RUST_TEST_THREADS ?= $(shell expr $$(nproc) + 1)
test: setup-test check ## Everything: format, lints, docs, licences, unit and integration tests
	cargo test --locked --quiet --workspace
	cargo test --locked --quiet --no-default-features --lib media::source

check: ## Format, lints, documentation, dependencies
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
	cargo clippy --locked --workspace --all-targets --no-default-features --quiet -- -D warnings
	cargo clippy --locked --test chaos --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	tests/licences.sh

chaos: setup-test ## The long forms of the fault tests
	cargo test --locked --release --test chaos -- --test-threads 1 --nocapture --skip it::

bench: setup-demo setup-test ## What the performance claims rest on
	cargo bench --locked

setup-demo:
	@tools/need ffmpeg:ffmpeg ffprobe:ffmpeg espeak-ng:espeak-ng

setup-test:
	@tools/need ffmpeg:ffmpeg ffprobe:ffmpeg python3:python3 python3-venv:python3-venv curl:curl rabbitmq-server:rabbitmq-server redis-server:redis-server
