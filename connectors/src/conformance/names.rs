//! What a source lists.

use super::{Check, Subject, expect, sorted_once};

/// Everything is listed once and in order, and what is not there is said not to be there.
pub(super) async fn names(subject: &Subject) -> Check {
    let source = subject.source().await?;
    expect(
        sorted_once(&source.collections().await?),
        "collections are not sorted and unique",
    )?;
    expect(
        source.collections().await?.contains(&subject.collection),
        "the collection is not listed",
    )?;
    let datasets = source.datasets(&subject.collection).await?;
    expect(sorted_once(&datasets), "datasets are not sorted and unique")?;
    for sample in &subject.samples {
        expect(
            datasets.contains(&sample.name),
            &format!("`{}` is not listed", sample.name),
        )?;
    }
    expect(
        source.datasets("no such collection").await?.is_empty(),
        "a collection that is not there has datasets",
    )?;
    if let Some(listed) = source.listing().await? {
        let mut each = Vec::new();
        for collection in source.collections().await? {
            let datasets = source.datasets(&collection).await?;
            each.push((collection, datasets));
        }
        expect(listed == each, "everything at once is not what each collection has")?;
    }
    let session = subject.session();
    // Asked for together, tables have the columns that each has when it is opened.
    let mut asked = datasets.clone();
    asked.push("no such \"table\"".to_owned());
    let together = source.columns(&subject.collection, &asked, &session).await?;
    expect(together.len() == asked.len(), "columns are not told of each dataset")?;
    for (dataset, columns) in asked.iter().zip(together) {
        let table = source.dataset(&subject.collection, dataset, &session).await?;
        expect(
            columns? == table.map(|table| table.schema()),
            &format!("`{dataset}` has other columns in a listing"),
        )?;
    }
    for (collection, dataset) in [
        (subject.collection.as_str(), "no such \"table\""),
        ("no such collection", "x"),
    ] {
        let found = source.dataset(collection, dataset, &session).await?;
        expect(found.is_none(), "a dataset that is not there was found")?;
    }
    Ok(())
}
