# shellcheck shell=sh disable=SC2034,SC2154 # unpack.sh, partial.sh and clean.sh read; common.sh assigns
# Code that travels with a conversation: its values, git for our own commands, and packing what has become of it.
# Nothing here writes into the repository in which the work is done: objects, index and refs are made beside it.

PACK_LIMIT_S=3600
PACK_BYTES=2147483648 # untracked files in all
PACK_BRANCHES=64
digest() {
  { sha256sum "$1" 2>/dev/null || shasum -a 256 "$1" 2>/dev/null || openssl dgst -sha256 -r "$1"; } | cut -c 1-64
}

# Prints `sha256  name` of those that are there.
sums_of() {
  for file in "$@"; do
    [ ! -f "$file" ] || echo "$(digest "$file")  $file"
  done
}

code='' project='' snapshot='' branch='' name='' prefix='' author='' state='' work='' tree='' store=''

# Sets `value` to a parameter byte for byte, a trailing newline included; empty when there is none.
read_param() {
  value=''
  [ -f "$run/param/$1" ] || return 0
  value=$(cat "$run/param/$1" && printf x)
  value=${value%x}
}

# Sets all that the run directory of `dispatch` says about code, and where it lies.
read_code() {
  read_param code && code=$value
  [ -n "$code" ] || return 0
  read_param code-project && project=$value
  read_param code-snapshot && snapshot=$value
  read_param code-branch && branch=$value
  read_param code-name && name=$value
  read_param code-prefix && prefix=$value
  read_param code-author && author=$value
  state=${run%/runs/*}
  work=$state/work/$dispatch
  tree=$work/$name
  store=$state/projects/$project.git
}

# What was sent is checked again: a path made of these must not lead anywhere else.
is_code_sane() {
  [ "$run" = "$state/runs/$dispatch" ] || return 1
  case $code in bundle) is_bundle_sane || return 1 ;; archive) ;; *) return 1 ;; esac
  case $name in '' | . | .. | .git | */*) return 1 ;; esac
  case /$prefix/ in //?* | */../*) return 1 ;; esac
}

is_bundle_sane() {
  case $project in '' | *[!0-9a-f-]*) return 1 ;; esac
  case $snapshot in *[!0-9a-f]*) return 1 ;; esac
  case ${#snapshot} in 40 | 64) ;; *) return 1 ;; esac
  git check-ref-format "refs/heads/$branch" 2>/dev/null || ! command -v git >/dev/null 2>&1
}

# --- git

# prepare_git SCRATCH: from here on git knows no settings but ours. The user's own list of what is never kept is one of
# them. To be called in a subshell: what the model starts shall find git as the user has it.
prepare_git() {
  excludes=$(git config --path --get core.excludesFile 2>/dev/null) ||
    excludes=${XDG_CONFIG_HOME:-$HOME/.config}/git/ignore
  # shellcheck disable=SC2034 # unpack.sh reads
  is_named=no
  # shellcheck disable=SC2034 # so is this
  [ -z "$(git config --get user.email 2>/dev/null)" ] || is_named=yes
  for variable in $(env | sed -n 's/^\(GIT_[A-Z0-9_]*\)=.*/\1/p'); do unset "$variable"; done
  mkdir -p "$1/home" && printf '[safe]\n\tdirectory = *\n' >"$1/home/.gitconfig" || return 1
  HOME=$1/home XDG_CONFIG_HOME=$1/home LC_ALL=C REMOTE_DISPATCH_CALL=$run
  GIT_CONFIG_NOSYSTEM=1 GIT_ATTR_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0 GIT_OPTIONAL_LOCKS=0
  # git would make up an address of this machine.
  GIT_AUTHOR_NAME=${author:-OpenCode} GIT_AUTHOR_EMAIL=remote-dispatch@invalid
  GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
  export HOME XDG_CONFIG_HOME LC_ALL REMOTE_DISPATCH_CALL GIT_CONFIG_NOSYSTEM GIT_ATTR_NOSYSTEM GIT_TERMINAL_PROMPT
  export GIT_OPTIONAL_LOCKS GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL
}

our_git() {
  git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.untrackedCache=false -c core.quotePath=false \
    -c "core.excludesFile=$excludes" -c gc.auto=0 -c maintenance.auto=false -c commit.gpgSign=false \
    -c protocol.allow=never -c submodule.recurse=false -c init.defaultBranch=main "$@"
}

# new_repository OPTION... DIRECTORY: without hooks, with the kind of ids that the snapshot has.
new_repository() {
  [ "${#snapshot}" -ne 64 ] || set -- --object-format=sha256 "$@"
  our_git init -q --template= "$@"
}

# --- what has become of it

# pack_code OUT: writes into this new directory `back-code` and, where home lacks something of it, `back.bundle` or
# `back.tar.gz`; `back-left-out` has the names of what did not fit. On failure it prints a word. In a subshell.
pack_code() {
  out=$1 desk=$1/desk
  # Outside of the tree: from within it, git would see only what is below the place where it was called.
  mkdir -p "$desk" && printf '' >"$desk/left" && cd -P -- "$desk" || exit 1
  [ -d "$tree" ] || give_up gone
  if [ "$code" = bundle ]; then
    prepare_git "$desk" || exit 1
    pack_repository yes || pack_repository no || give_up repository
  else
    pack_archive || give_up archive
  fi
  [ ! -s "$desk/left" ] || LC_ALL=C tr '\n\0' '?\n' <"$desk/left" >"$out/back-left-out"
  cd / && rm -rf "${desk:?}"
}

give_up() {
  echo "$1"
  exit 1
}

count_left_out() {
  LC_ALL=C tr -cd '\0' <"$desk/left" | wc -c | tr -d ' '
}

# pack_repository yes|no: with what the repository there says or, where that is damaged, only with the files.
pack_repository() {
  rm -rf "${desk:?}/pack.git" "$desk/index" "$desk/budget"
  printf '' >"$desk/left"
  find_own "$1"
  make_pack && find_head && stage_files && make_result && find_branches && write_bundle && write_back_code
}

# The repository that the work is done in may have been removed, or made anew.
find_own() {
  own=''
  [ "$1" = yes ] && own=$(our_git --git-dir="$tree/.git" rev-parse --absolute-git-dir) || own=''
}

own_git() {
  our_git --git-dir="$own" "$@"
}

pack_git() {
  our_git --git-dir="$desk/pack.git" "$@"
}

# It borrows all objects. Links, because not every path can stand in a list of alternates.
make_pack() {
  new_repository --bare "$desk/pack.git" && mkdir -p "$desk/pack.git/info" || return 1
  ln -s "$store/objects" "$desk/pack.git/of-project" && echo ../of-project >"$desk/pack.git/objects/info/alternates" || return 1
  [ ! -f "$run/param/code-shallow" ] || cp "$run/param/code-shallow" "$desk/pack.git/shallow" || return 1
  [ -n "$own" ] || return 0
  ln -s "$own/objects" "$desk/pack.git/of-own" && echo ../of-own >>"$desk/pack.git/objects/info/alternates"
  [ ! -f "$own/info/exclude" ] || cp "$own/info/exclude" "$desk/pack.git/info/exclude"
}

# Sets `head`; empty where there is none, or none that is whole.
find_head() {
  head=''
  [ -n "$own" ] || return 0
  head=$(own_git rev-parse -q --verify 'HEAD^{commit}') && pack_git cat-file -e "$head^{tree}" || head=''
}

# The index is a copy, with its times: they say which files need not be read again.
stage_files() {
  export GIT_INDEX_FILE="$desk/index" GIT_WORK_TREE="$tree"
  [ -z "$own" ] || cp -p "$own/index" "$desk/index" 2>/dev/null || :
  pack_git ls-files --stage >/dev/null || rm -f "$desk/index"
  [ -f "$desk/index" ] || pack_git read-tree "${head:-$snapshot}" || return 1
  stage_changed && stage_new "$tree" && mv "$desk/found" "$desk/nested" && stage_nested && note_submodules
  staged=$?
  unset GIT_INDEX_FILE GIT_WORK_TREE
  return "$staged"
}

stage_changed() (
  cd -P -- "$tree" || exit 1
  pack_git update-index -q --refresh >/dev/null
  pack_git diff-files -z --name-only --ignore-submodules=dirty >"$desk/changed" || exit 1
  choose <"$desk/changed" >"$desk/chosen" && add_chosen
)

# stage_new DIRECTORY: what is neither tracked nor ignored.
stage_new() (
  cd -P -- "$1" && printf '' >"$desk/found" || exit 1
  pack_git ls-files -z --others --exclude-standard >"$desk/new" || exit 1
  weigh <"$desk/new"
  choose <"$desk/new" >"$desk/chosen" && add_chosen
)

# What has gone meanwhile is no error.
add_chosen() {
  pack_git update-index -z --add --remove --replace --stdin <"$desk/chosen"
}

# Where the files are more than may travel, `budget` says how many bytes there are for them.
weigh() {
  if stat -c %s / >/dev/null 2>&1; then set -- -c %s; else set -- -f %z; fi
  bytes=$(xargs -0 stat "$@" -- 2>/dev/null | awk '{ sum += $1 } END { printf "%.0f", sum }')
  [ -f "$desk/budget" ] || [ "$bytes" -le "$PACK_BYTES" ] || echo "$PACK_BYTES" >"$desk/budget"
}

# Reads paths, each with a NUL behind it, and prints those that can travel. The others are noted in `left`, repositories
# within the tree in `found`: git would keep no more of these than an id.
choose() {
  # shellcheck disable=SC2016 # another shell expands it
  xargs -0 sh -c '
    desk=$1
    shift
    newline=$(printf "\nx")
    newline=${newline%x}
    leave() { printf "%s\0" "$1" >>"$desk/left"; }
    is_fitting() {
      [ -f "$desk/budget" ] && [ -f "$1" ] && [ ! -L "$1" ] || return 0
      room=$(($(cat "$desk/budget") - $(wc -c <"$1")))
      [ "$room" -ge 0 ] && echo "$room" >"$desk/budget"
    }
    for file do
      case $file in
        *"$newline"*/) leave "$file" ;;
        */) printf "%s\n" "${file%/}" >>"$desk/found" ;;
        *)
          if [ ! -L "$file" ] && [ -e "$file" ] && [ ! -d "$file" ] && ! { [ -f "$file" ] && [ -r "$file" ]; }; then
            leave "$file"
          elif is_fitting "$file"; then
            printf "%s\0" "$file"
          else
            leave "$file"
          fi
          ;;
      esac
    done' choose "$desk"
}

# Repositories that were made within the tree come as the files that are in them. The list grows while it is read.
stage_nested() {
  while IFS= read -r nested; do
    stage_one_nested "$nested" </dev/null || return 1
  done <"$desk/nested"
}

stage_one_nested() (
  inner=$(
    export GIT_INDEX_FILE="$desk/index.nested" GIT_WORK_TREE="$tree/$1"
    rm -f "$GIT_INDEX_FILE"
    stage_new "$GIT_WORK_TREE" && pack_git write-tree
  ) || exit 1
  while IFS= read -r deeper; do printf '%s\n' "$1/$deeper"; done <"$desk/found" >>"$desk/nested"
  printf '%s\0' "$1" | pack_git update-index -z --force-remove --stdin
  [ -z "$(pack_git ls-tree "$inner")" ] || pack_git read-tree --prefix="$1/" "$inner"
)

# The commits of a submodule that was moved on do not travel.
note_submodules() {
  pack_git diff-index --cached --raw "$snapshot" >"$desk/moved" || return 1
  grep '^:[0-7]* 160000 ' "$desk/moved" | cut -f 2- | LC_ALL=C tr '\n' '\0' >>"$desk/left"
}

# Sets `result`: the last commit, or one more with what was left uncommitted.
make_result() {
  staged=$(GIT_INDEX_FILE="$desk/index" pack_git write-tree) || return 1
  result=${head:-$snapshot}
  [ "$staged" != "$(pack_git rev-parse "$result^{tree}")" ] || return 0
  result=$(pack_git commit-tree "$staged" -p "$result" -m "Work left uncommitted by dispatch ${branch#*/}")
}

# Writes `branches`, lines `name id`, of those that lead to more than the result does. A stash is one of them.
find_branches() {
  printf '' >"$desk/branches"
  [ -n "$own" ] || return 0
  own_git for-each-ref --format='%(objectname) %(refname)' refs/heads/ refs/stash >"$desk/refs" || return 1
  while read -r tip ref; do
    ! is_known "$tip" || continue
    if [ "$(wc -l <"$desk/branches")" -ge "$PACK_BRANCHES" ]; then
      printf '%s\0' "$ref" >>"$desk/left"
    else
      echo "$(name_of "$ref") $tip" >>"$desk/branches"
    fi
  done <"$desk/refs"
}

is_known() {
  pack_git merge-base --is-ancestor "$1" "$result" || pack_git merge-base --is-ancestor "$1" "$snapshot"
}

name_of() {
  case $1 in
    refs/heads/*) echo "${1#refs/heads/}" ;;
    *) if grep -q ' refs/heads/stash$' "$desk/refs"; then echo dispatch-stash; else echo stash; fi ;;
  esac
}

# Only the snapshot is surely at home. A bundle of nothing cannot be made. Tips are arguments: before 2.31 git took none
# from its input.
write_bundle() {
  set --
  if ! pack_git merge-base --is-ancestor "$result" "$snapshot"; then
    pack_git update-ref refs/dispatch/result "$result" || return 1
    set -- refs/dispatch/result
  fi
  while read -r short tip; do
    pack_git update-ref "refs/dispatch/branches/$short" "$tip" || return 1
    set -- "$@" "refs/dispatch/branches/$short"
  done <"$desk/branches"
  [ "$#" -eq 0 ] || pack_git bundle create "$out/back.bundle" "$@" "^$snapshot" >/dev/null
}

write_back_code() {
  {
    echo "result $result"
    [ -z "$head" ] || echo "head $head"
    sed 's/^/branch /' "$desk/branches"
    echo "left_out $(count_left_out)"
  } >"$out/back-code"
}

# Without git here nothing tells what is ignored: that is found at home. A file that changes while it is read is no error.
pack_archive() (
  cd -P -- "$tree" || exit 1
  export COPYFILE_DISABLE=1 # or macOS adds a file to each
  find . -name .git -prune -o ! -type d -print0 >"$desk/new" || exit 1
  weigh <"$desk/new"
  choose <"$desk/new" >"$desk/chosen" || exit 1
  if tar --null -cf /dev/null -T /dev/null 2>/dev/null; then
    tar --null -czf "$out/back.tar.gz" -T "$desk/chosen"
  else
    pack_in_parts
  fi
  [ "$?" -le 1 ] && gzip -t "$out/back.tar.gz" || exit 1
  echo "left_out $(count_left_out)" >"$out/back-code"
)

# A small tar takes names only as arguments, as many as fit: each part comes without the two empty blocks at its end.
pack_in_parts() {
  # shellcheck disable=SC2016 # another shell expands it
  {
    xargs -0 sh -c '
      [ "$#" -gt 0 ] || exit 0
      tar -cf "$0" "$@" || exit 1
      blocks=$(($(wc -c <"$0") / 512 - 2))
      dd if="$0" bs=512 count="$blocks" 2>/dev/null' "$desk/part" <"$desk/chosen" && printf '' >"$desk/whole"
    dd if=/dev/zero bs=512 count=2 2>/dev/null
  } | gzip -c >"$out/back.tar.gz"
  [ -f "$desk/whole" ]
}
