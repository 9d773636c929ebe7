"""The sandbox over HTTP, in the dialects that trainers speak: SandboxFusion, Piston, open-instruct, and this project's own.

Needs the extra `serve`: FastAPI, uvicorn, prometheus-client.
"""
