//! A line is whole or absent.

use std::fs;

use super::*;

fn contents(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_torn_last_line_is_cut_and_whole_lines_stay() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("outbox.jsonl");
    for (found, kept) in [
        ("", ""),
        ("{\"a\":1}\n", "{\"a\":1}\n"),
        ("{\"a\":1}\n{\"b\"", "{\"a\":1}\n"),
        ("{\"never ended\"", ""),
    ] {
        fs::write(&path, found).unwrap();
        let mut sink = FileSink::open(&path).unwrap();
        assert_eq!(contents(&path), kept, "of {found:?}");
        sink.append(b"{}\n").unwrap();
        assert_eq!(contents(&path), format!("{kept}{{}}\n"));
    }
}

#[test]
fn a_torn_line_longer_than_one_look_back_is_cut_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("outbox.jsonl");
    let torn = "x".repeat(usize::try_from(LOOK_BACK_BYTES).unwrap() * 2 + 17);
    fs::write(&path, format!("whole\n{torn}")).unwrap();
    FileSink::open(&path).unwrap();
    assert_eq!(contents(&path), "whole\n");
}

#[test]
fn a_file_that_was_renamed_away_is_followed_by_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("outbox.jsonl");
    let rotated = directory.path().join("outbox.jsonl.1");
    let mut sink = FileSink::open(&path).unwrap();
    sink.append(b"1\n").unwrap();
    fs::rename(&path, &rotated).unwrap();
    sink.append(b"2\n").unwrap();
    sink.append(b"3\n").unwrap();
    assert_eq!(
        (contents(&rotated), contents(&path)),
        ("1\n".to_owned(), "2\n3\n".to_owned())
    );
}

#[test]
fn a_full_disk_leaves_no_part_of_a_line() {
    // The kernel's own full disk: every write to it is refused with ENOSPC.
    let error = FileSink::open(Path::new("/dev/full")).and_then(|mut sink| sink.append(b"line\n"));
    let text = error.unwrap_err().to_string();
    assert!(text.contains("/dev/full"), "{text}");
}

#[test]
fn a_directory_in_the_files_place_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = FileSink::open(directory.path()).unwrap_err().to_string();
    assert!(
        error.contains("opening") && error.contains(directory.path().to_str().unwrap()),
        "{error}"
    );
}
