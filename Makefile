# authserver: `make` lists what there is to do.
GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BIN      := bin/authserver
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 1m
PORT     ?= 5000
AUTH_PORT ?= 5001
OPS_PORT ?= 5002
DIR      ?= run
SOURCE   ?= $(shell git config --get remote.origin.url 2>/dev/null | sed 's,://[^/]*@,://,')

.PHONY: help build run test e2e e2e-kubernetes chaos lint fuzz bench microbench generate clean image release release-check packages

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

build: ## build bin/authserver, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/authserver

run: build ## start authserver and a real registry on localhost, and say what to type (PORT, AUTH_PORT, OPS_PORT, DIR)
	@bash e2e/local.sh -registry-port $(PORT) -auth-port $(AUTH_PORT) -ops-port $(OPS_PORT) -dir "$(DIR)"

test: lint ## vet, static analysis, and all unit tests with the race detector
	GO=$(GO) bash .ci/unit

e2e: ## real registries and real clients against the built program
	bash e2e/run.sh

e2e-kubernetes: ## the overlays and the chart in a real Kubernetes of one node
	bash e2e/kubernetes.sh

chaos: ## break what authserver lives on, one thing at a time, under load
	bash e2e/chaos.sh

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l cmd internal e2e)" || { gofmt -l cmd internal e2e; echo "not gofmt'ed"; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=.ci/tools.mod staticcheck ./...

fuzz: ## fuzz every parser, FUZZTIME each
	FUZZTIME=$(FUZZTIME) bash .ci/fuzz

bench: ## measure authserver beside bare programs that only sign or hash, a quarter of an hour (BENCH="-quick": three minutes)
	@bash e2e/bench.sh $(BENCH)

microbench: ## benchmarks of the token path
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...

image: ## build the container image, as authserver:VERSION and authserver:latest
	docker build -f deploy/Dockerfile -t authserver:$(VERSION) -t authserver:latest \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) \
	  --build-arg CREATED=$(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null) --build-arg SOURCE=$(SOURCE) .

release: ## a release of what is committed, for all platforms, in dist/
	GO=$(GO) deploy/release/release.sh dist

release-check: ## make it twice, in two places, and compare
	GO=$(GO) bash deploy/release/check.sh

packages: ## the part of a release that is for this machine: archive, deb and rpm
	GO=$(GO) deploy/release/release.sh -platforms $$($(GO) env GOOS)/$$($(GO) env GOARCH) dist

generate: ## write schemas, and the references of commands and metrics, anew from the code
	$(GO) test ./internal/config ./internal/acl -run Schema -update
	$(GO) test ./cmd/authserver ./internal/metrics -run Reference -update

clean: ## remove what was built (not ./run)
	rm -rf bin dist e2e/.cache
