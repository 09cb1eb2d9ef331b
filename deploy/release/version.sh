#!/usr/bin/env bash
# Prints what the commit that is checked out here is called, and then what packages of it are called. Debian and RPM know no
# pre-releases: there 1.2.3-rc.1 would come after 1.2.3 or be refused, and 1.2.3~rc.1 comes before it.
set -euo pipefail
described=$(git describe --tags --always --abbrev=12 --match 'v[0-9]*') # of one length, whatever core.abbrev says and the clone holds
if [[ $described =~ ^v(.+)-([0-9]+)-(g[0-9a-f]{12,})$ ]]; then # commits after a release: 1.2.3+4.gabcdef012345
	version=${BASH_REMATCH[1]}+${BASH_REMATCH[2]}.${BASH_REMATCH[3]}
elif [[ $described == v* ]]; then
	version=${described#v}
else # before the first one
	version=0.0.0+$(date -u -d "@$(git log -1 --format=%ct)" +%Y%m%d).g$described
fi
echo "$version" "${version//-/\~}"
