import pytest

from kgclip import tasks
from kgclip.tables import GraphError


@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_task_trains_and_evaluates(name):
    task = tasks.find_task({"task": name}, "config")
    assert callable(task.train)
    assert callable(task.evaluate)


def test_a_config_without_a_task_is_a_clip():
    from kgclip import training

    assert tasks.find_task({}, "config") is training


def test_unknown_tasks_name_the_nearest(tmp_path):
    (tmp_path / "c.toml").write_text('task = "link_predicton"\n')
    with pytest.raises(GraphError, match=r"c\.toml: unknown task .*did you mean 'link_prediction'"):
        tasks.train(tmp_path / "c.toml")


def test_the_run_remembers_its_task(tmp_path):
    data = tmp_path / "d"
    data.mkdir()
    (data / "train.txt").write_text("a\tr\tb\nb\tr\tc\n")
    (data / "test.txt").write_text("a\tr\tc\n")
    file = tmp_path / "c.toml"
    file.write_text(
        f'task = "link_prediction"\ngraph = "{data}"\noutput = "{tmp_path / "run"}"\n'
        "model = { channels = 4 }\ntraining = { epochs = 2 }\n"
    )
    assert tasks.evaluate(tasks.train(file))["both/count"] == 2
    with pytest.raises(GraphError):
        tasks.evaluate(tmp_path / "nothing")
