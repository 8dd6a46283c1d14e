"""What a page costs its app behind a real server: the races' shop under uvicorn, loaded by wrk."""
