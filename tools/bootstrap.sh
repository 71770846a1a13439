# Builds Trainyard on demand; sourced by tools/trainyard and tools/test, which set `root` to the root of the repository.
# The stamp is dated before its build began and appears only when the build has succeeded.
#
# Exit status as the program's: 1 the build failed, 4 something outside is missing.

build=$root/build
stamp=$build/.trainyard-stamp
lock=$build/.lock
log=$build/build.log

say() { printf '%s\n' "trainyard: $*" >&2; }

# Whether the program is missing or older than anything it is built from. Folders count too: they change when a file is
# deleted. Scenarios and sweeps are not built in, and results are written beside them.
is_stale() {
  [[ -f $stamp && -x $build/trainyard ]] || return 0
  [[ -n $(cd -- "$root" && find sim topology workloads strategies scenarios tools cmake CMakeLists.txt CMakePresets.json \
    \( -path scenarios/library -o -path scenarios/sweeps \) -prune -o -newer "$stamp" -print -quit 2>&1) ]]
}

listed_packages() { # lists...
  grep -hv -e '^#' -e '^$' -- "$@"
}

missing_packages() { # lists...
  local package
  while read -r package; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || printf '%s\n' "$package"
  done < <(listed_packages "$@")
}

# Fails with 4, and has said why, where they cannot be installed.
install_packages() { # lists...
  local -a missing as_root=()
  if ! command -v dpkg-query >/dev/null; then # not Debian: whoever has the tools may have the libraries, CMake will tell
    command -v cmake >/dev/null && command -v ninja >/dev/null && return 0
    say "this is not Debian; install by hand what these packages hold: $(listed_packages "$@" | tr '\n' ' ')"
    return 4
  fi
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0
  if ((EUID != 0)); then
    as_root=(sudo)
    [[ -t 2 ]] || as_root=(sudo -n) # nobody there to type a password
    if ! command -v sudo >/dev/null || ! "${as_root[@]}" true 2>/dev/null </dev/null; then
      say "these packages are missing and only root can install them: apt-get install ${missing[*]}"
      return 4
    fi
  fi
  say "installing ${missing[*]}"
  local -a apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
  "${apt[@]}" install --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null && return 0
  "${apt[@]}" update >>"$log" 2>&1 </dev/null
  "${apt[@]}" install --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null && return 0
  say "cannot install these packages (see build/build.log): ${missing[*]}"
  return 4
}

# As many compilers as there are cores, and no more than memory holds at 1 GiB each.
build_jobs() {
  local cores memory_kib
  cores=$(nproc)
  memory_kib=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo 2>/dev/null)
  local by_memory=$((${memory_kib:-67108864} / 1048576))
  ((by_memory >= 1)) || by_memory=1
  printf '%s' $((cores < by_memory ? cores : by_memory))
}

configure_and_build() { # targets...
  local fresh=()
  # A checkout that was moved or copied together with its build folder
  if [[ -f $build/CMakeCache.txt ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$build/CMakeCache.txt"; then
    fresh=(--fresh)
  fi
  (cd -- "$root" && cmake "${fresh[@]}" --preset release &&
    cmake --build --preset release --parallel "$(build_jobs)" --target "$@") >>"$log" 2>&1 </dev/null
}

build_under_lock() { # targets...
  : >"$log"
  install_packages "$root/tools/packages" || exit 4
  rm -f -- "$stamp"
  touch -- "$stamp.new"
  if ! configure_and_build "$@"; then
    tail -n 100 -- "$log" >&2
    say "the build failed; all of its output is in build/build.log"
    exit 1
  fi
  mv -f -- "$stamp.new" "$stamp"
}

# Runs in a subshell, which holds the lock for as long as it lives.
with_lock() (
  if ! mkdir -p -- "$build" 2>/dev/null || ! { : >>"$lock"; } 2>/dev/null; then
    say "cannot write to the folder build/ of the repository, which is where the program is built"
    exit 4
  fi
  exec 9>>"$lock"
  flock 9
  "$@"
)

build_if_stale() {
  is_stale || return 0 # another call has built it meanwhile
  say "building Trainyard (once) …"
  build_under_lock trainyard
}

build_everything() {
  say "building Trainyard and its tests …"
  build_under_lock all
  install_packages "$root/tools/packages-test" || say "the tests that need them are skipped"
}
