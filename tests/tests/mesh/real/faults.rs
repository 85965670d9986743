//! Faults of time and space, as tables: files that are cut, garbage or gone, full and read-only disks, clocks that are wrong or
//! step, on either side, with the other there and away. Each ends in service, or in a sentence that says what is to be done.

mod control;
mod proxy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use weft_tests::process::{Process, binary};

use super::run;

/// What has to follow.
#[derive(Debug, Clone, Copy)]
enum Then {
    Serves,
    /// It serves, and says this.
    ServesAndSays(&'static str),
    /// It does not serve, and says this.
    Says(&'static str),
}

impl Then {
    /// Judges what was seen: whether it serves, and everything it has said. `None`: it is too early to tell.
    fn judge(self, serves: bool, said: &str) -> Option<Result<(), String>> {
        let (must_serve, words) = match self {
            Then::Serves => (true, ""),
            Then::ServesAndSays(words) => (true, words),
            Then::Says(words) => (false, words),
        };
        match (serves, must_serve) {
            (true, false) => Some(Err("it serves".to_owned())),
            (true, true) | (false, false) if said.contains(words) => Some(Ok(())),
            _ => None,
        }
    }
}

/// A clock that is so far from the machine's, for one process; as much time passes as on any other.
fn with_clock(program: &mut Command, distance: &Path) {
    let library = fs::read_dir("/usr/lib")
        .expect("/usr/lib can be read")
        .flatten()
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())
        .expect("libfaketime is installed");
    program.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", distance);
    program.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

/// One of our programs on a clock that stands in the file `clock`, where there is one.
fn started(name: &str, folder: &Path, configuration: &Path) -> Process {
    let mut program = Command::new(binary(name));
    program.arg("--config").arg(configuration);
    let clock = folder.join("clock");
    if clock.exists() {
        with_clock(&mut program, &clock);
    }
    Process::start(name, folder, &mut program)
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").args([from, to]));
}

/// Cuts a file in half.
fn cut(path: PathBuf) {
    let bytes = fs::read(&path).expect("the file is there");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("it can be written");
}

/// The same length, and nothing that anybody wrote.
fn garbage(path: PathBuf) {
    let length = fs::metadata(&path).expect("the file is there").len().max(64);
    let bytes: Vec<u8> = (0..length).map(|index| (index * 131 % 251) as u8 | 0x80).collect();
    fs::write(&path, bytes).expect("it can be written");
}

fn gone(path: PathBuf) {
    fs::remove_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A small disk in place of a folder, holding what the folder held. It is taken away with its handle.
struct Disk(PathBuf);

impl Disk {
    fn under(folder: &Path) -> Self {
        let aside = folder.with_extension("aside");
        fs::rename(folder, &aside).expect("a folder can be moved");
        fs::create_dir(folder).expect("a folder can be made");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs"]).arg(folder));
        run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(folder));
        fs::remove_dir_all(aside).expect("a folder can be removed");
        Self(folder.to_owned())
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut filler = fs::File::create(self.0.join("filler")).expect("a file can be made");
        while std::io::Write::write(&mut filler, &[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    fn make_room(&self) {
        gone(self.0.join("filler"));
    }

    fn read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
