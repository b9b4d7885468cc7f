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

fuzz:
	@for f in FileName UIDList Keywords Subscriptions Names; do \
		go test ./maildir -run '^$$' -fuzz "^Fuzz$$f$$" -fuzztime 20s || exit 1; done
	go test ./backend/wire -run '^$$' -fuzz '^FuzzStream$$' -fuzztime 20s
