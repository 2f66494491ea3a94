//! The steps that copy a range of a file, live or of the past.

use super::*;

impl Session {
    pub(super) async fn copy(
        &mut self,
        at: usize,
        path: &str,
        range: (usize, usize, usize),
    ) -> bool {
        let Some(id) = self.find(path).filter(|id| !self.tree.is_directory(*id)) else {
            return false;
        };
        let text = self.tree.nodes[id].text.clone();
        if self.handles[at].is_none() || text.len() <= range.0 || range.2 == 0 {
            return false;
        }
        let file = self.ns.tree.file(self.ino(id)).await.unwrap();
        let source = file.clone_source(&author()).await.unwrap().unwrap();
        self.tree.write_back(id);
        self.paste(at, &source, &text, range).await
    }

    pub(super) async fn copy_past(
        &mut self,
        at: usize,
        path: &str,
        which: usize,
        range: (usize, usize, usize),
    ) -> bool {
        let Some(slot) = self.slot(path).filter(|_| self.handles[at].is_some()) else {
            return false;
        };
        let versions = self
            .ns
            .history
            .view()
            .versions(self.ino(slot.0), &slot.1)
            .await
            .unwrap();
        let Some(version) = versions.get(which % versions.len().max(1)) else {
            return false;
        };
        let text = self
            .ns
            .history
            .read_past(version, 0, u32::MAX)
            .await
            .unwrap();
        if version.kind != Kind::File || text.len() <= range.0 || range.2 == 0 {
            return false;
        }
        let source = self.ns.tree.clone_source(version);
        self.paste(at, &source, &text, range).await
    }

    async fn paste(
        &mut self,
        at: usize,
        source: &CloneSource,
        text: &[u8],
        (from, to, len): (usize, usize, usize),
    ) -> bool {
        let Some(h) = &self.handles[at] else {
            return false;
        };
        let range = (from as u64, to as u64, len as u64);
        let shown = h
            .file
            .clone_range(source, range.0, range.1, range.2, &author())
            .await
            .unwrap();
        let end = text.len().min(from + len);
        assert_eq!(
            shown as usize,
            end - from,
            "copy of {len} bytes at {from} into handle {at}: length"
        );
        self.tree.write(h.id, to, &text[from..end]);
        true
    }
}
