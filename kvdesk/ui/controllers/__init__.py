"""One controller a subject: it shows what happened in the backend and sends commands."""
