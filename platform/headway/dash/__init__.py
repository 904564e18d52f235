"""`headway dash`: a local web page over the runs folder.

    serve.py      the command: address, token, what it prints, uvicorn
    app.py        the web application: paths and what they answer
    guard.py      who may ask: Host, Origin, token; and the headers of every answer
    files.py      reads below the runs folder, and nowhere else
    recipes.py    a recipe as dotted values, ten thousand of them in a second
    entries.py    one folder of the runs folder as a row of the table
    runs.py       all of them, kept up to date
    query.py      filtered, sorted, grouped, paged
    series.py     a metric as a curve of at most so many points
    run_page.py   what one run's page shows
    sweeps.py     what a sweep's page shows
    jobs.py       every launcher's jobs, asked for in the background
    offline_wandb.py  runs that W&B wrote elsewhere
    export.py     all of it as files
    live.py       what changed since, as it happens
    actions.py    cancel, retry, stop, delete; and the log of who did
    assets/       the page itself

Imports no torch, lightning, ray or wandb.
"""
