# make test does all the set-up there is: it installs the programs that the tests talk to.

PEERS = dovecot-imapd dovecot-lmtpd postfix maildrop fdm getmail6 procmail isync neomutt mutt \
	curl python3 libglib2.0-0 strace e2fsprogs

# courier-imap can't be installed beside dovecot-imapd. Its packages, with the libraries that its imapd
# needs, are only downloaded; tests unpack them where they need them.
COURIER = courier-imap courier-authlib libcourier-unicode4 libgdbm6 libidn12 libgamin0 gamin

.PHONY: test lint peers fuzz strategies coexistence

test: peers lint
	MAILDIR_PEERS=require go test -race -timeout 20m ./...

lint:
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "gofmt would change: $$files"; exit 1; }
	go vet ./...
	go tool staticcheck ./...

# Debian packages, installed when they are missing; who may not install them is told their names.
peers: build/courier
	@missing=; for p in $(PEERS); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] && exit 0; \
	[ "$$(id -u)" = 0 ] || { echo "the tests need these Debian packages:$$missing"; exit 1; }; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing

build/courier:
	[ "$$(id -u)" != 0 ] || apt-get update -q
	rm -rf $@.tmp && mkdir -p $@.tmp
	cd $@.tmp && apt-get download -q $(COURIER)
	mv $@.tmp $@

# The tables in docs/strategies.md.
strategies: peers
	MAILDIR_PEERS=require go test ./internal/e2e -run '^TestStrategies' -count 1 -update

# The figures in docs/coexistence.md: each pairing of servers and programs runs for five minutes.
coexistence: peers
	MAILDIR_PEERS=require go test ./internal/e2e -run '^TestCoexistence$$' -count 1 -timeout 2h -coexistence 5m -update

fuzz:
	@for dir in $$(go list -f '{{.Dir}}' ./...); do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z]*' $$dir/*_test.go 2>/dev/null | cut -c6-); do \
			(cd $$dir && go test -run '^$$' -fuzz "^$$f$$" -fuzztime 20s -fuzzminimizetime 10x .) || exit 1; \
		done; \
	done
