def draw_study(tables, folder):
    pass
