"""What a verification found, as JSON, as one HTML page, and as CI systems read it."""
