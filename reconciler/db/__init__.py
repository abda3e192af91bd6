"""PostgreSQL itself: the pool, the migrations, the roles."""
