# make test does all the set-up there is: it installs the programs that the tests talk to.

PEERS = dovecot-imapd postfix isync neomutt curl python3

.PHONY: test lint peers fuzz

test: peers lint
	MAILDIR_PEERS=require go test -race -timeout 20m ./...

lint:
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "gofmt would change: $$files"; exit 1; }
	go vet ./...
	go tool staticcheck ./...

# Debian packages, installed when they are missing; who may not install them is told their names.
peers:
	@missing=; for p in $(PEERS); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] && exit 0; \
	[ "$$(id -u)" = 0 ] || { echo "the tests need these Debian packages:$$missing"; exit 1; }; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing

# Each fuzz target for a while.
fuzz:
	@for dir in $$(go list -f '{{.Dir}}' ./...); do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z]*' $$dir/*_test.go 2>/dev/null | cut -c6-); do \
			(cd $$dir && go test -run '^$$' -fuzz "^$$f$$" -fuzztime 20s -fuzzminimizetime 10x .) || exit 1; \
		done; \
	done
