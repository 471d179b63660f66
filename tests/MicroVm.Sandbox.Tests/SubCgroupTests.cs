using MicroVm.Sandbox.Runtime;

namespace MicroVm.Sandbox.Tests;

public sealed class SubCgroupTests
{
    [Theory]
    [InlineData(null, new string[0])]
    [InlineData(null, new[] { "/" })]
    [InlineData("a/b", new[] { "a/./b/" })]
    [InlineData("b", new[] { "a/../b" })]
    [InlineData("a", new[] { ":a" })]
    public void ACgroupIsBelowTheContainers(string? path, string[] values) => Assert.Equal(path, SubCgroup.Parse(values));

    [Theory]
    [InlineData("../.. is not a sub cgroup path", new[] { "../.." })]
    [InlineData("a/../../b is not a sub cgroup path", new[] { "a/../../b" })]
    [InlineData("invalid --cgroup argument: a:b:c", new[] { "a:b:c" })]
    [InlineData("invalid --cgroup argument: x (missing <controller>: prefix)", new[] { "x", "y" })]
    [InlineData("invalid --cgroup argument(s): controller cpu specified multiple times", new[] { "cpu,cpu:x" })]
    [InlineData("unknown controller foo in SubCgroupPaths: the cgroups of a VM are of version 2, name one without a controller", new[] { "foo:b" })]
    public void OtherFormsAreRefusedInRuncsWords(string message, string[] values) =>
        Assert.Equal(message, Assert.Throws<SandboxException>(() => SubCgroup.Parse(values)).Message);
}
