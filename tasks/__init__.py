"""The stages as Prefect tasks: what each depends on in the config, caching, retries, progress, work on other machines."""
