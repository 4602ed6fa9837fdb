//! `order-service sql`: the same answer however many files the rows are spread over, and no way to change one.

use std::path::Path;
use std::process::Output;

use crate::client::{Client, an_order};
use crate::service::{Service, run};
use crate::waits::caught_up;

fn sql(data: &Path, statement: &str, format: &str) -> Output {
    run([
        "sql".as_ref(),
        "--data-dir".as_ref(),
        data.as_os_str(),
        "--format".as_ref(),
        format.as_ref(),
        statement.as_ref(),
    ])
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

/// A service with twelve orders by two customers, caught up.
async fn with_orders(arguments: &[&str]) -> (tempfile::TempDir, Service) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), arguments);
    let client = Client::of(&service);
    for number in 0..12 {
        let mut order = an_order();
        order["customer_id"] = format!("c-{}", number % 2).into();
        client.place(&order).await;
    }
    caught_up(&client).await;
    (data, service)
}

#[tokio::test]
async fn counts_sorts_and_views_see_all_files_as_one() {
    for arguments in [
        ["--partitions", "4", "--read-model-shards", "1"],
        ["--partitions", "4", "--read-model-shards", "4"],
        // More files than SQLite attaches to one connection.
        ["--partitions", "12", "--read-model-shards", "12"],
    ] {
        let (data, _service) = with_orders(&arguments).await;
        let ask = |statement: &str| text(sql(data.path(), statement, "csv"));
        assert_eq!(
            ask("select count(1) as n from OrderView"),
            "n\r\n12\r\n",
            "{arguments:?}"
        );
        assert_eq!(
            ask("select customer_id, orders_placed, ordered from CustomerSummary order by 1"),
            "customer_id,orders_placed,ordered\r\nc-0,6,23988\r\nc-1,6,23988\r\n",
            "{arguments:?}"
        );
        assert_eq!(
            ask("select sum(quantity) as q from OrderLineView"),
            "q\r\n24\r\n"
        );
        let sorted = ask("select order_id from OrderView order by order_id desc");
        let ids: Vec<_> = sorted.lines().skip(1).collect();
        assert!(ids.is_sorted_by(|left, right| left > right), "{ids:?}");
    }
}

#[tokio::test]
async fn rows_come_as_a_table_as_csv_and_as_json() {
    let (data, _service) = with_orders(&["--partitions", "1"]).await;
    let ask = |statement, format| text(sql(data.path(), statement, format));
    let statement = "select 1 as one, 'a,\"b\"' as text, null as none, x'0aff' as bytes";
    assert_eq!(
        ask(statement, "table"),
        "one  text   none  bytes\n---  -----  ----  -----\n1    a,\"b\"        0aff\n"
    );
    assert_eq!(
        ask(statement, "csv"),
        "one,text,none,bytes\r\n1,\"a,\"\"b\"\"\",,0aff\r\n"
    );
    assert_eq!(
        ask(statement, "json"),
        "{\"bytes\":\"0aff\",\"none\":null,\"one\":1,\"text\":\"a,\\\"b\\\"\"}\n"
    );
    assert_eq!(ask("select 1 as one where 0", "csv"), "one\r\n");
}

#[tokio::test]
async fn nothing_can_be_changed_through_it() {
    for shards in ["1", "2"] {
        let (data, _service) =
            with_orders(&["--partitions", "2", "--read-model-shards", shards]).await;
        for statement in [
            "delete from OrderView",
            "update OrderView set total = 0",
            "drop table OrderView",
            "create table Mine (it text)",
        ] {
            let output = sql(data.path(), statement, "json");
            assert_eq!(output.status.code(), Some(1), "{statement}: {output:?}");
        }
        assert_eq!(
            text(sql(
                data.path(),
                "select count(1) as n from OrderView",
                "csv"
            )),
            "n\r\n12\r\n"
        );
    }
}

#[test]
fn a_wrong_statement_and_a_missing_directory_are_told_apart() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let missing = sql(data.path(), "select 1", "csv");
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    assert!(Service::start(data.path(), &[]).terminate().success());
    let wrong = sql(data.path(), "select nothing from nowhere", "csv");
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("nowhere"),
        "{wrong:?}"
    );
}
