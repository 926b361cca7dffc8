//! A watched file against a real directory.

use super::*;

fn start(path: &Path, reload: &watch::Sender<u64>) -> WatchedFile<u32> {
    let parse = |text: &str, _: Option<&u32>| text.trim().parse::<u32>();
    WatchedFile::start(path, reload.subscribe(), parse)
}

async fn until(file: &WatchedFile<u32>, wanted: impl Fn(&WatchedFile<u32>) -> bool) {
    while !wanted(file) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_takes_effect_within_the_next_looks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n");
    std::fs::write(&path, "1").unwrap();
    let (reload, _) = watch::channel(0);
    let file = start(&path, &reload);
    assert_eq!(file.current().as_deref(), Some(&1));
    std::fs::write(&path, "22").unwrap();
    until(&file, |f| f.current().as_deref() == Some(&22)).await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_new_version_leaves_the_last_good_one_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n");
    std::fs::write(&path, "1").unwrap();
    let (reload, _) = watch::channel(0);
    let file = start(&path, &reload);
    std::fs::write(&path, "one!").unwrap();
    until(&file, |f| f.last_error().is_some()).await;
    assert_eq!(file.current().as_deref(), Some(&1));
    std::fs::remove_file(&path).unwrap();
    until(&file, |f| f.last_error().is_some_and(|e| e.contains("cannot be read"))).await;
    assert_eq!(file.current().as_deref(), Some(&1));
    std::fs::write(&path, "1").unwrap();
    until(&file, |f| f.last_error().is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_appears_later_is_taken_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n");
    let (reload, _) = watch::channel(0);
    let file = start(&path, &reload);
    assert_eq!(file.current(), None);
    assert!(file.last_error().is_some());
    std::fs::write(&path, "5").unwrap();
    until(&file, |f| f.current().is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn an_optional_file_may_be_absent_from_the_start_and_not_be_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n");
    let (reload, _) = watch::channel(0);
    let parse = |text: &str| text.trim().parse::<u32>();
    let file = WatchedFile::optional(&path, reload.subscribe(), "nothing holds", parse);
    assert_eq!((file.current(), file.last_error()), (None, None));
    std::fs::write(&path, "one!").unwrap();
    until(&file, |f| f.last_error().is_some()).await;
    std::fs::write(&path, "5").unwrap();
    until(&file, |f| f.current().is_some()).await;
    std::fs::remove_file(&path).unwrap();
    until(&file, |f| f.last_error().is_some_and(|e| e.contains("cannot be read"))).await;
    assert_eq!(file.current().as_deref(), Some(&5));
}

#[tokio::test(start_paused = true)]
async fn sighup_reads_the_file_even_when_time_and_size_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n");
    std::fs::write(&path, "1").unwrap();
    let (reload, _) = watch::channel(0);
    let file = start(&path, &reload);
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, "2").unwrap();
    let handle = std::fs::File::options().write(true).open(&path).unwrap();
    handle.set_modified(modified).unwrap();
    tokio::time::sleep(3 * LOOK_EVERY).await;
    assert_eq!(file.current().as_deref(), Some(&1), "same stamp: not read");
    reload.send_modify(|n| *n += 1);
    until(&file, |f| f.current().as_deref() == Some(&2)).await;
}

#[tokio::test(start_paused = true)]
async fn files_that_count_together_are_taken_once_they_fit_whichever_came_first() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    for path in [&one, &other] {
        std::fs::write(path, "1").unwrap();
    }
    let (reload, _) = watch::channel(0);
    let paths = vec![one.clone(), other.clone()];
    let file =
        WatchedFile::together(paths, reload.subscribe(), |texts, _: Option<&String>| match texts {
            [one, other] if one == other => Ok(one.clone()),
            _ => Err("they do not fit"),
        });
    assert_eq!(file.current().as_deref().map(String::as_str), Some("1"));
    for (first, second) in [(&one, &other), (&other, &one)] {
        let new = format!("{}+", file.current().unwrap());
        std::fs::write(first, &new).unwrap();
        while file.last_error().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::fs::write(second, &new).unwrap();
        while *file.current().unwrap() != new {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(file.last_error(), None);
    }
}
