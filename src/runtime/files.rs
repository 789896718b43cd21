//! Small files that are read whole, and replaced atomically.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

/// Reads a text file of up to `bytes_max` bytes; `None` if there is no file.
///
/// # Errors
/// The file cannot be read, or is not UTF-8.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(bytes_max).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Replaces the file with the output of `write`, atomically: a crash or a full disk leaves the old or the new file.
///
/// # Errors
/// The disk refuses.
pub fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut buffered = BufWriter::new(File::create(&temporary)?);
    write(&mut buffered)?;
    let file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        assert_eq!(read(&path, 10).unwrap(), None);
        replace(&path, |file| file.write_all(b"first")).unwrap();
        replace(&path, |_| Err(io::Error::other("the disk is full"))).unwrap_err();
        assert_eq!(read(&path, 10).unwrap().as_deref(), Some("first"));
        replace(&path, |file| file.write_all(b"second, and longer")).unwrap();
        assert_eq!(read(&path, 6).unwrap().as_deref(), Some("second"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read(&path, 10).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
