//! Uploads the contents of queued operations and adds the range rows that say where the bytes are.
//!
//! The contents of a group are packed and uploaded without a lock (`DataStore::upload`). Then the range rows of each
//! content are composed (`DataStore::compose`) and added to its operation and to the overlay. A crash before the commit
//! of the rows leaves segments that no row cites; the next mount uploads the contents again from the journal.

use crate::store::commit::Committer;
use crate::store::commit::operation::Operation;
use crate::sync::Arc;

impl Committer {
    /// Uploads the contents of operations together. A content that fails is recorded as failed, with the reason, and
    /// stays queued.
    pub(crate) async fn upload_group(self: Arc<Self>, group: Vec<Arc<Operation>>, inline: bool) {
        let contents: Vec<_> = group.iter().filter_map(|o| o.content.clone()).collect();
        let mut in_flight = self.data.in_flight(self.data.next_segment());
        let slices = match self.data.upload(&contents, inline).await {
            Ok(slices) => slices,
            Err(error) => {
                in_flight.failed();
                return self.data.upload_failed(&contents, &error);
            }
        };
        for (operation, slices) in group.iter().zip(slices) {
            let Some(pending) = &operation.content else {
                continue;
            };
            match self.data.compose(pending, slices).await {
                Ok(uploaded) => self.data.publish(uploaded, |rows| {
                    self.core.index.apply(operation.order, &rows);
                    operation.add_rows(rows);
                }),
                Err(error) => {
                    in_flight.failed();
                    self.data
                        .upload_failed(std::slice::from_ref(pending), &error);
                }
            }
        }
    }
}
