//! An object that comes from another store, whole and under a name that it has already.

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{S3Store, buffer::Buffer, state::Upload};
use crate::storage::{Dead, Error, Location, ObjectStream, Store};

impl S3Store {
    /// Puts what the stream brings at the location, a part at a time.
    pub(super) async fn fill(
        &self,
        location: &Location,
        length: u64,
        mut bytes: ObjectStream,
    ) -> Result<(), Error> {
        let part_bytes = self.part_bytes_for(length)?;
        if length < part_bytes {
            let all: Vec<Bytes> = bytes.try_collect().await?;
            return self.put_whole(location, all.into_iter().collect()).await;
        }
        // What lies there would be taken for what this makes.
        let old = [Dead::of(location.clone(), 0)];
        self.delete(&old).await.into_iter().collect::<Result<(), Error>>()?;
        let id = self.begin_upload(location).await?;
        let upload = Upload { id, at: location.as_str().to_owned() };
        let filled = self.fill_parts(location, &upload, part_bytes, &mut bytes).await;
        let completed = match filled {
            Ok(parts) => self.complete(location, &upload.id, &parts, length).await,
            Err(error) => Err(error),
        };
        if completed.is_err() {
            // What cannot be given up now, a rule of the bucket's has to.
            let _ = self.abort_upload(&upload).await;
        }
        completed
    }

    async fn fill_parts(
        &self,
        location: &Location,
        upload: &Upload,
        part_bytes: u64,
        bytes: &mut ObjectStream,
    ) -> Result<Vec<String>, Error> {
        let (mut parts, mut buffer) = (Vec::new(), Buffer::default());
        loop {
            let piece = bytes.try_next().await?;
            let is_last = piece.is_none();
            buffer.extend(piece.into_iter().collect());
            while buffer.bytes() >= part_bytes || (is_last && buffer.bytes() > 0) {
                let part = buffer.take(part_bytes).payload();
                parts.push(self.put_part(location, &upload.id, parts.len(), part, None).await?);
            }
            if is_last {
                return Ok(parts);
            }
        }
    }
}
