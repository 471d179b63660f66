using Mono.Cecil;

namespace MicroVm.Architecture.Tests;

/// <summary>
/// The executables are linked without protobuf's descriptors, reflection and JSON (WithoutDescriptors.xml): code that asks a
/// message for them would throw there, and only there.
/// </summary>
public sealed class DescriptorTests
{
    private static readonly string[] Assemblies = ["microvm", "microvm-agent", "MicroVm.Sandbox", "MicroVm.Protocol", "MicroVm.Ttrpc"];

    [Fact]
    public void NoCodeAsksMessagesForDescriptorsOrText()
    {
        SortedSet<string> found = [];
        int messages = 0;
        foreach (string assembly in Assemblies)
        {
            foreach ((TypeReference user, MemberReference used) in Uses.Of(assembly))
            {
                if (user.Resolve() is { } type && (IsMessage(type) || type.Name.EndsWith("Reflection", StringComparison.Ordinal)))
                {
                    messages++;
                    continue;
                }

                bool descriptor = used is MethodReference { Name: "get_Descriptor" } || used.FullName.StartsWith("Google.Protobuf.Reflection.", StringComparison.Ordinal);
                bool json = (used as TypeReference ?? used.DeclaringType)?.FullName is "Google.Protobuf.JsonFormatter" or "Google.Protobuf.JsonParser";
                bool text = used is MethodReference { Name: "ToString" } && used.DeclaringType.Resolve() is { } owner && IsMessage(owner);
                bool interpolated = used is GenericInstanceMethod { Name: "AppendFormatted" } format
                    && format.GenericArguments.Any(a => !a.IsGenericParameter && a.Resolve() is { } argument && IsMessage(argument));
                if (descriptor || json || text || interpolated)
                {
                    found.Add($"{assembly}: {user.FullName} uses {used.FullName}");
                }
            }
        }

        Assert.Empty(found);
        Assert.True(messages > 1000, $"{messages} uses by messages were found: the assemblies were not read");
    }

    private static bool IsMessage(TypeDefinition type) => type.Interfaces.Any(i => i.InterfaceType.FullName.StartsWith("Google.Protobuf.IMessage", StringComparison.Ordinal));
}
