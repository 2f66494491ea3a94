//! Calls on the bytes of an open file.

use bytes::Bytes;

use super::compare::same;
use super::session::{Difference, END, Session, same_result};
use super::steps::Flags;
use super::tree::When;
use crate::fs::HandleOffset;
use crate::fs::testing::SUPER;
use crate::fs::{Caller, WriteMode};

/// The model's limit for file lengths. Valid calls that would exceed it are skipped.
const MODEL_END: u64 = 1 << 20;

impl Session {
    pub(super) async fn write(
        &mut self,
        at: usize,
        offset: u64,
        len: usize,
        kill_privileges: bool,
    ) -> Result<(), Difference> {
        let (number, id, flags) = self.parts(at);
        let fill = self.fill;
        // No two positions near each other hold the same byte.
        let pattern: Vec<u8> = (0..251).map(|i| fill.wrapping_mul(31) ^ i).collect();
        let mut bytes = pattern.repeat(len.div_ceil(pattern.len()));
        bytes.truncate(len);
        let node = &mut self.tree.nodes[id];
        let offset = match flags {
            Flags::Append => node.size(),
            _ => offset,
        };
        if (MODEL_END..=END).contains(&(offset + len as u64)) {
            return Ok(());
        }
        let expected = match flags {
            Flags::Read => Err(libc::EBADF),
            _ => {
                if kill_privileges {
                    node.strip(&SUPER);
                }
                match offset + len as u64 > END {
                    true => Err(libc::EFBIG),
                    false => Ok(len as u32),
                }
            }
        };
        self.handles[at].changed |= flags != Flags::Read;
        if expected.is_ok() {
            put(self, id, offset, &bytes);
        }
        let how = WriteMode {
            from_page_cache: false,
            kill_privileges,
        };
        let ino = self.ino(id);
        let found = self
            .fs()
            .write(&SUPER, ino, number, offset, Bytes::from(bytes), how)
            .await;
        match same_result(found, &expected)? {
            Some(written) => same("written", written, len as u32),
            None => Ok(()),
        }
    }

    pub(super) async fn fallocate(
        &mut self,
        at: usize,
        (offset, len): (u64, u64),
        mode: i32,
    ) -> Result<(), Difference> {
        let (number, id, flags) = self.parts(at);
        if (MODEL_END..=END).contains(&(offset + len)) && matches!(mode, 0 | 0x10) {
            return Ok(());
        }
        let expected = match mode {
            _ if flags == Flags::Read => Err(libc::EBADF),
            _ if offset + len > END => Err(libc::EFBIG),
            0 | 1 | 3 | 0x10 | 0x11 => Ok(()),
            _ => Err(libc::EOPNOTSUPP),
        };
        self.handles[at].changed |= expected.is_ok() || expected == Err(libc::EOPNOTSUPP);
        if expected.is_ok() {
            let node = &mut self.tree.nodes[id];
            let (from, to) = (offset as usize, (offset + len) as usize);
            let grows = matches!(mode, 0 | 0x10) && to > node.bytes().len();
            if grows {
                node.edit(|bytes| bytes.resize(to, 0));
            }
            if matches!(mode, 3 | 0x10 | 0x11) {
                node.edit(|bytes| {
                    let end = to.min(bytes.len());
                    bytes[from.min(end)..end].fill(0);
                });
            } else if !grows {
                // Whether an allocation without a change of bytes updates the times is unspecified.
                for when in [&mut node.mtime, &mut node.ctime] {
                    if let When::At(time) = *when {
                        *when = When::Since(time);
                    }
                }
            }
        }
        let found = self
            .fs()
            .fallocate(&SUPER, self.ino(id), number, offset, len, mode)
            .await;
        same_result(found, &expected).map(drop)
    }

    pub(super) async fn copy(
        &mut self,
        (source, from): (usize, u64),
        (target, to): (usize, u64),
        len: u64,
        caller: &Caller,
    ) -> Result<(), Difference> {
        let (from_number, source, _) = self.parts(source);
        let (to_number, target_id, flags) = self.parts(target);
        let overlaps = from < to.saturating_add(len) && to < from.saturating_add(len);
        if source == target_id && overlaps {
            // The kernel refuses overlapping ranges.
            return Ok(());
        }
        let bytes = self.tree.nodes[source].bytes();
        // The kernel limits the length to the source's size before the call.
        let len = len.min((bytes.len() as u64).saturating_sub(from));
        let start = usize::try_from(from).unwrap().min(bytes.len());
        let end = start.saturating_add(len as usize).min(bytes.len());
        let bytes = bytes[start..end].to_vec();
        if (MODEL_END..=END).contains(&(to + bytes.len() as u64)) {
            return Ok(());
        }
        let expected = match flags {
            Flags::Read => Err(libc::EBADF),
            _ if to + bytes.len() as u64 > END && !bytes.is_empty() => Err(libc::EFBIG),
            _ => Ok(bytes.len() as u64),
        };
        if flags != Flags::Read && caller.uid != 0 {
            self.tree.nodes[target_id].strip(caller);
        }
        if expected.is_ok() && !bytes.is_empty() {
            self.handles[target].changed = true;
            put(self, target_id, to, &bytes);
        }
        let position = |ino, handle, offset| HandleOffset {
            ino,
            handle,
            offset,
        };
        let from = position(self.ino(source), from_number, from);
        let to = position(self.ino(target_id), to_number, to);
        let found = self.fs().copy_file_range(caller, from, to, len).await;
        match same_result(found, &expected)? {
            Some(copied) => same("copied", copied, bytes.len() as u64),
            None => Ok(()),
        }
    }

    /// Checks that a reported hole has only zeros, and that an offset at or behind the end is ENXIO.
    pub(super) async fn seek(
        &mut self,
        at: usize,
        offset: u64,
        data: bool,
    ) -> Result<(), Difference> {
        let (number, id, _) = self.parts(at);
        let whence = if data {
            libc::SEEK_DATA
        } else {
            libc::SEEK_HOLE
        };
        let found = self
            .fs()
            .lseek(self.ino(id), number, offset as i64, whence)
            .await;
        let bytes = self.tree.nodes[id].bytes();
        let rest = bytes
            .get(usize::try_from(offset).unwrap()..)
            .unwrap_or_default();
        let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        let found = match found {
            Ok(found) if !rest.is_empty() => found as usize - offset as usize,
            Err(error) if error.errno() == libc::ENXIO => {
                return match rest.is_empty() || data && zeros(rest) {
                    true => Ok(()),
                    false => Err(format!(
                        "lseek from {offset}: found ENXIO, expected an offset: {} bytes follow",
                        rest.len()
                    )),
                };
            }
            other => {
                return Err(format!(
                    "lseek from {offset}: found {other:?}, with {} bytes behind the offset",
                    rest.len()
                ));
            }
        };
        let right = match data {
            true => found < rest.len() && zeros(&rest[..found]),
            false => found == rest.len() || rest.get(found) == Some(&0),
        };
        match right {
            true => Ok(()),
            false => Err(format!(
                "lseek from {offset}: found {}, which is {}",
                offset + found as u64,
                if data {
                    "behind other data, or no data"
                } else {
                    "no hole"
                }
            )),
        }
    }
}

fn put(session: &mut Session, id: usize, offset: u64, new: &[u8]) {
    let from = offset as usize;
    session.tree.nodes[id].edit(|bytes| {
        bytes.resize(bytes.len().max(from + new.len()), 0);
        bytes[from..from + new.len()].copy_from_slice(new);
    });
}
