def start_where_pages_are_served(app: object) -> None:
    pass
