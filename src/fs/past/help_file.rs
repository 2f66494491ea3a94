//! `.versions/@help`: how to use the past.

use super::node::{Identity, LivePlace, NodeKind, PastFile, PastObject};
use super::reader::PastReader;
use super::shown::ShownAttrs;
use super::text::part;
use crate::fs::error::FsResult;
use crate::store::{Attrs, Kind};
use async_trait::async_trait;
use bytes::Bytes;

/// `@help`.
#[derive(Debug)]
pub(super) struct HelpFile;

#[async_trait]
impl PastObject for HelpFile {
    fn identity(&self, _parent: u64, _name: &[u8]) -> Identity {
        Identity::new(NodeKind::HelpFile, &[], b"")
    }

    fn live_place(&self) -> LivePlace<'_> {
        LivePlace::Nowhere
    }

    async fn attributes(&self, past: &PastReader) -> FsResult<ShownAttrs> {
        let attrs = Attrs {
            mode: 0o444,
            size: past.help.len() as u64,
            ..Attrs::default()
        };
        Ok(ShownAttrs::new(attrs, past.ttl))
    }
}

#[async_trait]
impl PastFile for HelpFile {
    fn kind(&self) -> Kind {
        Kind::File
    }

    async fn read(&self, past: &PastReader, offset: u64, len: u32) -> FsResult<Bytes> {
        Ok(part(&past.help, offset, len))
    }
}

/// The text, for a mount that calls the past `versions_name`.
pub(super) fn text(versions_name: &[u8]) -> Bytes {
    let name = String::from_utf8_lossy(versions_name);
    Bytes::from(format!(
        "Every saved version of every file, read-only. {name} is in every directory; listings do not show it.\n\
         \n\
         ls {name}/                          the instants at which this directory changed (UTC)\n\
         ls {name}/2026-11-20T09-00/         this directory then; also 2026-11-20, '2026-11-20 09:00+0100'\n\
         ls {name}/-2h/                      this directory two hours ago; also -30s, -15m, -3d, -1w\n\
         ls -l {name}/@files/NAME/           every version of NAME, oldest first; latest, previous\n\
         diff {name}/-1d/NAME NAME           what changed since yesterday\n\
         ls -l {name}/@deleted/              what was removed, as it was last\n\
         mv {name}/@deleted/NAME ./          bring it back, a directory with its tree; nothing is copied\n\
         mkdir {name}/LABEL                  name what is here now: later ls {name}/LABEL/; rmdir and mv work too\n\
         setfattr -n user.versions.hold -v 2027-01-01 {name}/LABEL   nothing removes it until then\n\
         cat {name}/@log                     what changed here, oldest first\n\
         cp {name}/-2h/NAME NAME             restore a file (what it replaces is kept as a version)\n\
         rsync -a --delete {name}/-1d/ ./    restore this directory\n\
         getfattr -n user.versions.user FILE   who saved; also time, id, op, host, pid_name, renamed_from, size, ...\n\
         \n\
         A time without seconds, minutes or hours means the last state in that minute, hour or day.\n\
         Old versions thin out: hours, days, then weeks stay (`rewindfs policy show`). A label keeps what it shows.\n\
         Temporary files of editors (NAME~, *.tmp, *.swp, ...) are listed while they exist, and found by name later.\n\
         -2h, today's date and the like are one instant for one command (a process group), for ten minutes at most;\n\
         `rewindfs stamp -2h` prints a name of it that stays.\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn the_text_uses_the_name_of_the_mount() {
        let text = String::from_utf8(text(b".past").to_vec()).unwrap();
        assert!(text.contains("ls .past/-2h/") && !text.contains(" .versions"));
        assert!(text.ends_with('\n') && text.lines().all(|line| line.len() <= 110));
    }
}
