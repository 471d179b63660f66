using Mono.Cecil;

namespace MicroVm.Architecture.Tests;

/// <summary>What the types of an assembly use: bases, fields, signatures, and everything that their methods' code names.</summary>
internal static class Uses
{
    /// <summary>Each type of <paramref name="assembly"/> (a file beside the tests, without .dll) with each type or member that it uses.</summary>
    public static IEnumerable<(TypeReference User, MemberReference Used)> Of(string assembly)
    {
        using ModuleDefinition module = ModuleDefinition.ReadModule(Path.Combine(AppContext.BaseDirectory, assembly + ".dll"));
        foreach (TypeDefinition type in module.GetTypes())
        {
            foreach (MemberReference? used in OfType(type))
            {
                foreach (MemberReference part in Parts(used))
                {
                    yield return (Outermost(type), part);
                }
            }
        }
    }

    /// <summary>The type that a member belongs to, or the type itself, out of any type that it is nested in.</summary>
    public static TypeReference Outermost(MemberReference member)
    {
        TypeReference type = member as TypeReference ?? member.DeclaringType;
        while (type.DeclaringType is { } outer)
        {
            type = outer;
        }

        return type;
    }

    private static IEnumerable<MemberReference?> OfType(TypeDefinition type)
    {
        yield return type.BaseType;
        foreach (MemberReference member in type.Interfaces.Select(i => i.InterfaceType).Concat(type.Fields.Select(f => f.FieldType)))
        {
            yield return member;
        }

        foreach (MethodDefinition method in type.Methods)
        {
            yield return method.ReturnType;
            foreach (TypeReference parameter in method.Parameters.Select(p => p.ParameterType))
            {
                yield return parameter;
            }

            if (!method.HasBody)
            {
                continue;
            }

            foreach (MemberReference? named in method.Body.Instructions.Select(i => i.Operand as MemberReference).Concat(method.Body.Variables.Select(v => v.VariableType)))
            {
                yield return named;
            }
        }
    }

    // Generic arguments and element types are uses of their own.
    private static IEnumerable<MemberReference> Parts(MemberReference? used)
    {
        switch (used)
        {
            case null or GenericParameter:
                yield break;
            case GenericInstanceType instance:
                foreach (MemberReference part in instance.GenericArguments.SelectMany(Parts).Append(instance.ElementType))
                {
                    yield return part;
                }

                break;
            case TypeSpecification specification:
                foreach (MemberReference part in Parts(specification.ElementType))
                {
                    yield return part;
                }

                break;
            case TypeReference:
                yield return used;
                break;
            default:
                yield return used;
                foreach (MemberReference part in Parts(used.DeclaringType))
                {
                    yield return part;
                }

                break;
        }
    }
}
