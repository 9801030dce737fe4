"""A recipe of the engine generation in, what becomes of it on the maintained path out: report and new recipe.

`rows` reads data/migrations.yaml, `decide` chooses formats and budgets, `write` makes the new file's text.
"""

from scalellm_trt.migrate.decide import Change, Migration, Renaming, migrate
from scalellm_trt.migrate.write import recipe_text

__all__ = ["Change", "Migration", "Renaming", "migrate", "recipe_text"]
