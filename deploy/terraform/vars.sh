#!/usr/bin/env bash
# Writes the variable `settings` of main.tf, from deploy/env and whatever your shell overrides, as JSON to stdout.
#
#   deploy/terraform/vars.sh ENVIRONMENT >deploy/terraform/ENVIRONMENT.tfvars.json
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail

[[ $# == 1 && $1 != -* ]] || { sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p;};}' "$0" && exit 2; }
deploy=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
exec "$deploy/env.sh" "$1" python3 -I -S -c '
import json, os, re, sys
text = open(sys.argv[1]).read()
names = ["ENVIRONMENT", "SUFFIX", *re.findall(r"(?m)^: \"\$\{([A-Z_]+):=", text)]
print(json.dumps({"settings": {name: os.environ[name] for name in names}}, indent=2))
' "$deploy/env/defaults.env"
