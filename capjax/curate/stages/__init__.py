"""Stages that many pipelines share. A function here makes a stage; a class is one."""
