//! The notes beside the log: what a crash leaves of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::store::crashes::losses;
use crate::store::disk::platters::{Note, Platters, Step};
use crate::store::disk::simulated::Simulated;
use crate::store::disk::{self, Disk, Open};
use crate::store::note;

const DATA: &str = "/data";
const PATH: &str = "/data/NOTE";
/// Of several sectors, so that it can be torn.
const LONG: usize = 1500;

fn text(number: usize) -> Vec<u8> {
    vec![b'0' + u8::try_from(number).expect("few"); LONG]
}

/// Writes three notes, each in place of the one before.
fn write(disk: &Simulated) {
    disk::make_dir(disk, Path::new(DATA)).expect("made");
    for number in 1..4 {
        disk.note(|note| note.submitted = number);
        note::write(disk, Path::new(PATH), &text(number)).expect("written");
        disk.note(|note| note.acknowledged = number);
    }
}

/// What is there is the last that was acknowledged, or one that was on its way.
fn check(disk: &Simulated, noted: Note) -> Result<(), String> {
    let Ok(file) = disk.open(Path::new(PATH), Open::Read) else {
        return if noted.acknowledged == 0 { Ok(()) } else { Err("it is gone".into()) };
    };
    let mut found = vec![0; usize::try_from(file.size().expect("a size")).expect("small")];
    file.read_exact_at(&mut found, 0).expect("readable");
    let is = |number| found == text(number);
    if (noted.acknowledged.max(1)..=noted.submitted).any(is) { Ok(()) } else { Err("torn".into()) }
}

/// What is wrong after a crash at any step, if anything is; the syncs of `left_out` do nothing.
fn first_violation(steps: &[Step], left_out: Option<&Arc<str>>) -> Option<String> {
    let (mut platters, mut noted) = (Platters::default(), Note::default());
    for (at, step) in steps.iter().enumerate() {
        if let Step::Noted(newer) = step {
            noted = *newer;
        } else if left_out.is_none() || step.site() != left_out {
            platters.take(step);
        }
        for loss in losses(6) {
            if let Err(what) = check(&Simulated::on(&platters.after_crash(loss)), noted) {
                return Some(format!("after step {at}, losing {loss:?}: {what}"));
            }
        }
    }
    None
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "optimized code has no names to tell places by")]
fn a_note_that_was_acknowledged_is_there_after_any_crash_and_no_sync_of_it_is_spare() {
    let disk = Simulated::new();
    disk.name_sites();
    write(&disk);
    let steps = disk.steps();
    assert_eq!(first_violation(&steps, None), None);
    let sites: BTreeSet<_> = steps.iter().filter_map(Step::site).collect();
    println!("{} places sync: {sites:#?}", sites.len());
    assert_eq!(sites.len(), 3, "the note, its name, the directory: {sites:?}");
    for site in sites {
        assert!(first_violation(&steps, Some(site)).is_some(), "nobody would miss {site}");
    }
}
