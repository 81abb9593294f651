//! An action cannot end while one that is nested in it has not.

use partha::Client;

async fn out_of_order(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
    let outer = client.begin();
    let inner = outer.begin_nested()?;
    outer.commit().await?;
    inner.commit().await?;
    Ok(())
}

fn main() {}
