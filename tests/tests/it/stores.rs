//! The same claim on both engines: a test a store.

/// Makes a test of each function, once with `"segmented"` and once with `"jsonl"`.
macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod segmented {
            $(#[tokio::test] async fn $test() { super::$test("segmented").await })+
        }

        mod jsonl {
            $(#[tokio::test] async fn $test() { super::$test("jsonl").await })+
        }
    };
}

pub(crate) use on_both_stores;
