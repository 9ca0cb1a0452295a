#!/usr/bin/env bash
# Publishes one submission with the key of a form, and ends when it is on disk. Bash only.
#
#   NATS=127.0.0.1:4222 FORM=guide KEY=... bash publish.sh '{"email": "ada@example.com"}'
set -euo pipefail
inbox="_INBOX_$FORM.1" body=$1
exec 3<>"/dev/tcp/${NATS%:*}/${NATS##*:}"
bytes=$(printf %s "$body" | wc -c)
printf 'CONNECT {"user":"form-%s","pass":"%s","verbose":false,"pedantic":false}\r\nSUB %s 1\r\nPUB lodestone.forms.%s %s %d\r\n%s\r\n' \
  "$FORM" "$KEY" "$inbox" "$FORM" "$inbox" "$bytes" "$body" >&3
while IFS= read -r -t 10 line <&3; do
  case $line in
    PING*) printf 'PONG\r\n' >&3 ;;
    -ERR*) echo "$line" >&2; exit 1 ;;
    '{"error"'*) echo "$line" >&2; exit 1 ;;
    '{'*) exit 0 ;; # the answer to the submission
  esac
done
echo "the connection ended before the answer came; it may be stored or not" >&2
exit 1
