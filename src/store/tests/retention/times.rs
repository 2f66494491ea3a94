//! What directories show at times of the past, compared with the model.

use super::walk::Walk;
use super::words::DAY;
use super::*;
use crate::env::Env;

impl Walk {
    pub(super) async fn compare_times(&mut self) {
        let now = self.cluster.env.now();
        let view = self.ns.history.view();
        let horizons = view.horizons().await.unwrap();
        for number in 0..12 {
            let age = match number % 4 {
                0 => self.rng.below(2 * DAY as usize) as u64,
                1 => self.rng.below(15 * DAY as usize) as u64,
                _ => self.rng.below(200 * DAY as usize) as u64,
            };
            let any = Timestamp(now - age);
            let labels = &self.past.labels;
            let at = match (number % 4, labels.is_empty()) {
                (0, _) => any,
                (1, false) => Timestamp(labels[self.rng.below(labels.len())].at),
                _ => horizons.exact_before(any).unwrap_or(any),
            };
            for directory in self.directories.clone() {
                self.compare_time(&view, directory, at).await;
                // The newest time up to this one at which this directory is whole.
                if self.work.limits && number % 4 == 3 {
                    let exact = self.ns.history.exact_time(directory, at).await.unwrap();
                    self.compare_time(&view, directory, exact.unwrap_or(at))
                        .await;
                }
            }
        }
    }

    /// Compares what a directory shows at a time: everything, what is left, or nothing.
    pub(super) async fn compare_time(&mut self, view: &PastView, directory: Ino, at: Timestamp) {
        let horizons = view.directory_horizons(directory).await.unwrap();
        let wholeness = horizons.wholeness(at);
        let is_labeled = self.past.has_label(directory.0, at.0);
        let limits = &self.past.limits;
        if limits.is_exact(directory.0, at.0) {
            assert_eq!(wholeness, Wholeness::Exact, "{directory:?} at {at:?}");
        }
        let is_cut_off = self.ns.history.is_cut_off(directory, at).await.unwrap();
        if wholeness == Wholeness::CutOff && !is_labeled {
            assert!(is_cut_off, "{directory:?} at {at:?}");
            assert_ne!(limits.limiting(directory.0, at.0), [0_u64; 0]);
            self.seen.cut_off += 1;
            return;
        }
        assert!(!is_cut_off, "{directory:?} at {at:?}: {wholeness:?}");
        let exact = wholeness == Wholeness::Exact || is_labeled;
        self.seen.exact += u32::from(exact);
        let found = self.listed(view, directory, at).await;
        let expected = self.past.listed(directory.0, at.0, exact);
        assert_eq!(found, expected, "{directory:?} at {at:?}, exact: {exact}");
    }

    /// What a directory showed at a time: the contents of files, and the numbers of directories.
    pub(super) async fn listed(
        &self,
        view: &PastView,
        directory: Ino,
        at: Timestamp,
    ) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        for (name, entry) in view.list_at(directory, at).await.unwrap() {
            let text = match entry.kind {
                Kind::Directory => entry.ino.0.to_string().into_bytes(),
                _ => {
                    let text = self.ns.history.read_past(&entry, 0, u32::MAX).await;
                    text.unwrap().to_vec()
                }
            };
            found.push((String::from_utf8(name.to_vec()).unwrap(), text));
        }
        found
    }
}
