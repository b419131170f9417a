# shellcheck shell=sh disable=SC2034,SC2154 # code.sh and runner.sh assign and read
# How the code that came with a conversation is unpacked, before the conversation is. Finished means renamed: what a
# killed runner left is made anew by the next.
# Dispatches of one project need no lock against each other: git adds objects whole, each has a ref of its own, and no
# object goes while one of them has not ended (clean.sh).

UNPACK_LIMIT_S=3600

# The step before the directory is entered; does nothing where no code came.
place_code() {
  [ -n "$code" ] || return 0
  is_code_sane || refuse_code values || return 1
  directory=$tree/$prefix
  [ ! -d "$tree" ] || return 0
  mkdir -p "$state/work" "$state/projects" || refuse_code checkout || return 1
  bounded "$UNPACK_LIMIT_S" unpack_code 2>>"$run/code.log" || refuse_code "$(cat "$run/tmp/refused" 2>/dev/null)"
}

refuse_code() {
  code_state=refused code_problem=${1:-late}
  if grep -qsi 'no space left\|quota exceeded' "$run/code.log"; then problem=no-space; else fail code-refused; fi
  return 1
}

because() {
  echo "$1" >"$run/tmp/refused"
  exit 1
}

unpack_code() {
  fresh=$work.part.$$
  rm -rf -- "$work" "$work".part.*
  mkdir -p "$fresh" || because checkout
  if [ "$code" = bundle ]; then unpack_bundle; else unpack_archive; fi
  reach code.unpacked
  mv "$fresh" "$work" || because checkout
}

unpack_bundle() {
  command -v git >/dev/null 2>&1 || because no-git
  prepare_git "$run/tmp/git" || because checkout
  make_store || because bundle
  take_tree || { renew_store && take_tree; } || because "$word"
}

# On failure `word` is set.
take_tree() {
  take_bundle || return 1
  reach code.stored
  word=checkout
  make_tree
}

# What is damaged is made anew where no other dispatch works with it: the next one brings all of it. A full disk is no
# damage.
renew_store() {
  ! grep -qsi 'no space left\|quota exceeded' "$run/code.log" || return 1
  ! store_git fsck --no-dangling >/dev/null 2>&1 || return 1
  [ -z "$(sharers)" ] || return 1
  cd -P -- "$fresh" && rm -rf -- "$store" "${fresh:?}/$name" && make_store
}

# Prints the other dispatches that work with the project's objects, or are about to.
sharers() {
  grep -slxF -e "$project" "$state"/runs/*/param/code-project | while read -r file; do
    other=${file%/param/code-project}
    other=${other##*/}
    [ "$other" != "$dispatch" ] || continue
    if [ -d "$state/work/$other" ] || [ ! -e "$state/runs/$other/outcome.json" ]; then echo "$other"; fi
  done
}

# The objects of a project, kept from one dispatch to the next. Where two begin it at once, the second one's goes: mv
# puts it into the first one's, or refuses.
make_store() {
  [ ! -d "$store" ] || return 0
  new=$state/projects/.part.$project.$$
  new_repository --bare "$new" || return 1
  [ ! -f "$run/param/code-shallow" ] || cp "$run/param/code-shallow" "$new/shallow" || return 1
  mv "$new" "$store" || :
  rm -rf -- "$new" "${store:?}/${new##*/}"
  [ -f "$store/HEAD" ]
}

store_git() {
  our_git --git-dir="$store" "$@"
}

take_bundle() {
  if ! store_git cat-file -e "$snapshot^{tree}" 2>/dev/null; then
    store_git bundle unbundle "$run/code.bundle" >/dev/null 2>"$run/tmp/unbundle" || { name_bundle_problem; return 1; }
  fi
  word=snapshot
  store_git cat-file -e "$snapshot^{tree}" || return 1
  word=bundle
  store_git update-ref "refs/dispatch/$dispatch" "$snapshot"
}

name_bundle_problem() {
  cat "$run/tmp/unbundle" >&2
  word=bundle
  ! grep -q 'prerequisite commits' "$run/tmp/unbundle" || word=missing
}

# A repository of the dispatch's own, so that branches, stash and settings of two never meet; it borrows the objects.
make_tree() {
  own=$fresh/$name
  new_repository "$own" || return 1
  echo "../../../../../projects/$project.git/objects" >"$own/.git/objects/info/alternates" || return 1
  [ ! -f "$run/param/code-shallow" ] || cp "$run/param/code-shallow" "$own/.git/shallow" || return 1
  cd -P -- "$own" || return 1
  our_git update-ref "refs/heads/$branch" "$snapshot" && our_git symbolic-ref HEAD "refs/heads/$branch" || return 1
  name_author
  our_git read-tree -u --reset "$snapshot" || return 1
  [ "$(our_git write-tree)" = "$(our_git rev-parse "$snapshot^{tree}")" ]
}

# Where nobody is named here, git would refuse to commit, or make up an address of this machine.
name_author() {
  [ "$is_named" = no ] || return 0
  our_git config user.name "$GIT_AUTHOR_NAME" && our_git config user.email "$GIT_AUTHOR_EMAIL"
}

# The sender has checked it; neither are names or links of it believed here.
unpack_archive() {
  mkdir -p "$fresh/$name" || because checkout
  tar -tzf "$run/code.tar.gz" >"$run/tmp/names" || because archive
  ! grep -E '^/|(^|/)\.\.(/|$)' "$run/tmp/names" >&2 || because archive
  { cd -P -- "$fresh/$name" && tar -xozf "$run/code.tar.gz"; } || because archive
  [ -z "$(find . ! -type f ! -type d ! -type l)" ] || because archive
  # shellcheck disable=SC2016 # another shell expands it
  find . -type l -exec sh -c '
    for link do
      target=$(readlink "$link" && printf x) || exit 1
      case $target in /*) exit 1 ;; esac
      printf "%s" "${link%/*}/$target" | tr "\n" _ | awk -F / "
        { for (i = 1; i <= NF; i++) if (\$i == \"..\") { if (--depth < 0) exit 1 } else if (\$i != \".\" && \$i != \"\") depth++ }" || exit 1
    done' links {} + || because archive
}

# The place within the tree may be a link there.
is_inside_tree() {
  [ -n "$code" ] || return 0
  top=$(cd -P -- "$tree" && pwd -P)
  case $PWD in "$top" | "$top"/*) ;; *) return 1 ;; esac
}

# What came is in the tree now, and at home.
drop_code() {
  rm -f "$run/code.bundle" "$run/code.tar.gz"
}
