#!/usr/bin/env bash
# The page of `egressctl report` in a browser: what was refused is on it, and what programs and
# names call themselves stays text.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

command -v chromium >/dev/null || skip "chromium is missing: run scripts/deps.sh"
sandbox_up
listen tcp 443
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: blocked
    priority: 100
    action: deny
    rules:
      - {name: one host, addresses: [203.0.113.66], ports: [443], protocols: [tcp]}
      - {name: never tried, addresses: [203.0.113.67], ports: [443], protocols: [tcp]}
END
start_egressd "$POLICY"
expect_errno EPERM default_deny "an address" tcp 198.51.100.9 443
expect_errno EPERM deny_rule "what a rule denies" tcp 203.0.113.66 443
# A program may have any name that is a file's.
hostile="<img src='x' onerror=document.title='pwned'>"
cp "$EGRESSD_PROBE" "$SANDBOX_DIR/$hostile"
in_client "$SANDBOX_DIR/$hostile" tcp 198.51.100.10 443 --linger 500 >/dev/null || true
all_recorded() { audit_records 0 '"198.51.100.10"' "<img src='x'" >/dev/null; }
check "recorded with its name" wait_until 5 all_recorded
records=$SANDBOX_DIR/records.jsonl
cp "$SANDBOX_AUDIT" "$records"
# What only a broken agent or a forged log has.
# Nobody listens on its port 80: refused at once.
leak=203.0.113.80
printf '%s\n' '{"schema":1,"event":"gap","time":"2026-01-02T03:04:05.678901Z","count":42,"cause":"kernel"}' 'no record' \
  '{"schema":1,"time":"2026-01-01T00:00:00.000000Z","verdict":"denied","reason":"default_deny","hook":"connect","destination":"198.51.100.11","port":443,"protocol":"tcp","fqdns":["<script>document.title='"'pwned'"'</script>"],"comm":"\"><img src=http://'$leak'/ onerror=document.title='"'pwned'"'>"}' \
  >>"$records"

page=$SANDBOX_DIR/report.html
on_client "$EGRESSCTL" report "$records" --policy "$POLICY" -o "$page" 2>"$SANDBOX_DIR/err"
check "bad lines and gaps are told" grep -q '1 line skipped' "$SANDBOX_DIR/err"
check "… both" grep -q '42 records lost in 1 gap' "$SANDBOX_DIR/err"

# browse FILE NAME: its DOM after loading into NAME.dom, what went to the network into NAME.net.
browse() {
  on_client env HOME="$SANDBOX_DIR" timeout 30 chromium --headless --no-sandbox --disable-gpu \
    --disable-dev-shm-usage --disable-background-networking --disable-component-update \
    --no-first-run --user-data-dir="$SANDBOX_DIR/$2.profile" --log-net-log="$SANDBOX_DIR/$2.net" \
    --dump-dom "file://$1" >"$SANDBOX_DIR/$2.dom" 2>"$SANDBOX_DIR/$2.log" ||
    die "chromium: $(tail -n 5 "$SANDBOX_DIR/$2.log")"
}
browse "$page" report
dom=$SANDBOX_DIR/report.dom
row() { grep -q "<tr><th scope=\"row\" class=\"name\">$1</th><td class=\"name\">$2</td>" "$dom"; }
check "a row of the address" row 198.51.100.9 443/tcp
check "a row of the rule" row blocked 'one host'
check "a row of the pod, container or unit" row cgroup "/${SANDBOX_CGROUP##*/}"
check "a row of the rule without record" grep -q '>never tried</td><td>deny</td>' "$dom"
check "a row of the reason" grep -q '>default_deny</th><td>no rule knows this address</td>' "$dom"
check "the gap" grep -q '<td class="number">42</td>' "$dom"
check "the name of the program is text" grep -q "&lt;img src='x' onerror=document.title='pwned'&gt;" "$dom"
check "the name of the destination, too" grep -q "&lt;script&gt;document.title='pwned'&lt;/script&gt;" "$dom"
untouched() { grep -q '<title>egressd: what was denied</title>' "$1" && ! grep -qE '<(script|img)' "$1"; }
check "nothing of it ran" untouched "$dom"
leaked() { grep -q "$leak" "$1"; }
check "nothing was asked for" test ! "$(leaked "$SANDBOX_DIR/report.net" && echo yes)"

# The same page without either protection: this is what the checks above would see.
sed -e "s/&lt;/</g; s/&gt;/>/g; s/&quot;/\"/g; s/&#39;/'/g" -e '/Content-Security-Policy/d' "$page" \
  >"$SANDBOX_DIR/naive.html"
browse "$SANDBOX_DIR/naive.html" naive
check "unescaped, it runs" grep -q '<title>pwned</title>' "$SANDBOX_DIR/naive.dom"
check "unescaped, it asks" leaked "$SANDBOX_DIR/naive.net"
finish
