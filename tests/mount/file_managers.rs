//! The script for file managers opens the past of what is selected.

use std::path::Path;

use crate::support::mount::TestMount;
use crate::support::place::Place;

#[test]
fn the_past_of_a_selected_file_or_directory_is_opened() {
    let (bucket, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mount = TestMount::start(&Place::local(bucket.path()), &[]);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).display();
    let tools = tools.path().display();
    mount.sh(&format!(
        r#"
        # A file manager that tells what it was to open.
        printf '#!/bin/sh\nprintf "%%s\\n" "$1"\n' > {tools}/xdg-open; chmod +x {tools}/xdg-open
        PATH={tools}:$PATH; open={repository}/file-managers/rewindfs-versions; M=$PWD
        mkdir -p 'd/a b'; echo one > 'd/x y'; echo two > 'd/x y'; ln -s 'x y' d/link; echo dash > d/-n

        test "$($open "$M/d/x y" "$M/d/a b/")" = "$M/d/.versions/@files/x y
$M/d/a b/.versions"
        test "$(NAUTILUS_SCRIPT_SELECTED_FILE_PATHS="$M/d/x y
$M/d/link
" $open)" = "$M/d/.versions/@files/x y
$M/d/.versions/@files/link"
        # Each is a directory with the states in it.
        test "$(ls "$($open "$M/d/x y")" | grep -c '^2')" = 2
        cd d; test "$($open ./-n)" = ./.versions/@files/-n; test "$($open 'x y')" = './.versions/@files/x y'
        test "$($open)" = "$M/d/.versions"

        if $open "$M/d/missing" {tools}/xdg-open 2> {tools}/told; then exit 1; fi
        test "$(grep -c 'no earlier versions' {tools}/told)" = 2
        # A path that has no past does not keep the others from being opened.
        if $open {tools} "$M/d" > {tools}/opened 2> {tools}/told; then exit 1; fi
        grep -q "^rewindfs-versions: {tools}: " {tools}/told; test "$(cat {tools}/opened)" = "$M/d/.versions"
        "#
    ));
}
