//! The machine's whole file system, as the archive that a kernel unpacks at boot: cpio in its `newc` format.
//!
//! See `Documentation/driver-api/early-userspace/buffer-format.rst` in the kernel's tree.
#![forbid(unsafe_code)]

use super::Error;
use alloc::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;
const LINK: u32 = 0o120_000;

/// An archive being written. Paths are absolute, as in the machine; directories on the way to a file are made.
#[derive(Debug, Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
    there: BTreeSet<String>,
}

impl Initramfs {
    /// With nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A directory.
    pub fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.there.contains(path) {
            return;
        }
        self.parents(path);
        self.entry(path, DIRECTORY | 0o755, (0, 0), b"");
    }

    /// A file with these permissions. The first of a name stays.
    pub fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) {
        self.node(path, REGULAR | permissions & 0o7777, (0, 0), contents);
    }

    /// A character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.node(path, CHARACTER | 0o600, (major, minor), b"");
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.node(path, LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// A file of this host, executable there if it is here.
    pub fn copy(&mut self, from: &Path, path: &str) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;
        let failed = |error| Error::io(format!("read {}", from.display()), &error);
        let permissions = fs::metadata(from).map_err(failed)?.permissions().mode();
        let contents = fs::read(from).map_err(failed)?;
        self.file(path, permissions, &contents);
        Ok(())
    }

    /// A program of this host, with the shared libraries that it would load here, at the paths it would look for them.
    pub fn program(&mut self, from: &Path, path: &str) -> Result<(), Error> {
        self.copy(from, path)?;
        for library in libraries(from)? {
            let shown = library.to_string_lossy().into_owned();
            self.copy(&library, &shown)?;
        }
        Ok(())
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }

    fn node(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        let path = path.trim_start_matches('/');
        if !self.there.contains(path) {
            self.parents(path);
            self.entry(path, mode, device, contents);
        }
    }

    fn parents(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.there.insert(path.to_string());
        self.entries += 1;
        let links = if mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
        let fields = [
            self.entries, // inode
            mode,
            0, // user
            0, // group
            links,
            0, // time of change
            contents.len() as u32,
            0, // the file system's device
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0, // checksum, which newc has none of
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The dynamic linker of x86-64 with glibc: where programs name it.
const LINKER: &str = "/lib64/ld-linux-x86-64.so.2";

/// The shared libraries that a program would load, the linker among them; none for a static one.
///
/// # Cost
/// Starts the linker, which lists them without running the program.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>, Error> {
    if !Path::new(LINKER).exists() {
        return Ok(Vec::new()); // no glibc here: it can only be static
    }
    let output = Command::new(LINKER).arg("--list").arg(program).stdin(Stdio::null()).output();
    let output =
        output.map_err(|error| Error::io(format!("list the libraries of {}", program.display()), &error))?;
    if !output.status.success() {
        return Ok(Vec::new()); // static, or a script
    }
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    if let Some(lost) = listed.lines().find(|line| line.contains("not found")) {
        return Err(Error::missing(
            format!("{} needs {}", program.display(), lost.trim()),
            "install that library",
        ));
    }
    Ok(listed_libraries(&listed))
}

fn listed_libraries(listed: &str) -> Vec<PathBuf> {
    let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let paths = listed.lines().filter_map(|line| words(line).into_iter().find(|word| word.starts_with('/')));
    let mut paths: Vec<_> = paths.map(PathBuf::from).collect();
    if !paths.is_empty() {
        paths.push(PathBuf::from(LINKER));
    }
    paths.sort();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, mode and contents of each entry, read as the kernel's `init/initramfs.c` does.
    fn read(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&archive[at..at + 6], b"070701", "at {at}");
            let field = |n: usize| {
                let digits = &archive[at + 6 + 8 * n..at + 14 + 8 * n];
                usize::from_str_radix(core::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = &archive[at + 110..at + 110 + name_size - 1];
            assert_eq!(archive[at + 110 + name_size - 1], 0);
            let body = (at + 110 + name_size).next_multiple_of(4);
            let name = core::str::from_utf8(name).unwrap().to_string();
            at = (body + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(at, archive.len());
                return entries;
            }
            entries.push((name, mode as u32, archive[body..body + size].to_vec()));
        }
    }

    #[test]
    fn an_archive_reads_back_with_the_directories_before_what_is_in_them() {
        let mut archive = Initramfs::new();
        archive.file("/etc/a/long.name", 0o644, b"contents");
        archive.file("/etc/a/empty", 0o600, b"");
        archive.device("/dev/console", 5, 1);
        archive.link("/bin/sh", "tool");
        archive.directory("/etc");
        archive.file("/etc/a/empty", 0o600, b"the first stays");
        let expected = [
            ("etc", 0o040_755, ""),
            ("etc/a", 0o040_755, ""),
            ("etc/a/long.name", 0o100_644, "contents"),
            ("etc/a/empty", 0o100_600, ""),
            ("dev", 0o040_755, ""),
            ("dev/console", 0o020_600, ""),
            ("bin", 0o040_755, ""),
            ("bin/sh", 0o120_777, "tool"),
        ];
        let expected = expected.map(|(path, mode, text)| (path.to_string(), mode, text.as_bytes().to_vec()));
        assert_eq!(read(&archive.finish()), expected);
    }

    #[test]
    fn the_linkers_list_gives_each_library_and_the_linker_once() {
        let listed = "\tlinux-vdso.so.1 (0x0001)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0002)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x0003)\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", LINKER].map(PathBuf::from);
        assert_eq!(listed_libraries(listed), paths);
        assert_eq!(listed_libraries("\tstatically linked\n"), [""; 0].map(PathBuf::from));
    }

    #[test]
    fn this_very_test_brings_the_libraries_it_runs_with() {
        let program = std::env::current_exe().unwrap();
        let mut archive = Initramfs::new();
        archive.program(&program, "/bin/test").unwrap();
        let entries = read(&archive.finish());
        let test = entries.iter().find(|(path, ..)| path == "bin/test").unwrap();
        assert_eq!(test.1 & 0o100, 0o100, "executable");
        let mapped = fs::read_to_string("/proc/self/maps").unwrap();
        let is_dynamic = mapped.contains("/libc.so.6");
        assert_eq!(entries.iter().any(|(path, ..)| path.ends_with("/libc.so.6")), is_dynamic);
    }
}
