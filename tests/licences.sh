#!/usr/bin/env bash
# Every dependency has a licence that this project may be shipped with, and comes from the registry.
set -euo pipefail
cd "$(dirname "$0")/.."
allowed='MIT|Apache-2\.0|Apache-2\.0 WITH LLVM-exception|BSD-2-Clause|BSD-3-Clause|ISC|Zlib|Unicode-3\.0|CC0-1\.0|CDLA-Permissive-2\.0|Unlicense|MIT-0|BSL-1\.0|0BSD|blessing'
metadata=$(cargo metadata --locked --offline --format-version 1 --filter-platform x86_64-unknown-linux-gnu)
python3 - "$allowed" <(printf '%s' "$metadata") <<'EOF'
import json, re, sys

allowed = re.compile(rf"(?:{sys.argv[1]})$")
packages = json.load(open(sys.argv[2]))["packages"]
bad = []
for package in packages:
    if package["source"] is None:
        continue
    name = f'{package["name"]} {package["version"]}'
    if not package["source"].startswith("registry+"):
        bad.append(f"{name} does not come from the registry: {package['source']}")
    expression = (package["license"] or "").replace("/", " OR ")
    # An expression passes when one of its alternatives consists of allowed licences alone.
    ways = [re.split(r"\s+AND\s+", way) for way in re.split(r"\s+OR\s+", expression.replace("(", "").replace(")", ""))]
    if not any(all(allowed.match(part.strip()) for part in way) for way in ways):
        bad.append(f"{name} has licence {package['license']!r}, which is not on the list in tests/licences.sh")
if len(packages) < 50:
    bad.append(f"only {len(packages)} packages were listed: the check does not see the dependencies")
print("\n".join(bad), file=sys.stderr) if bad else None
sys.exit(bool(bad))
EOF
